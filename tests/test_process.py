"""Every schedule against closed forms, in float64 exactly and in float32 within bounds derived from its rounding."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.process import expand

NAMES = ['vp_linear', 'cosine', 'sub_vp', 've', 'edm', 'flow', 'sigmoid', 'mean_reverting', 'shifted', 'bisected']
PRESERVING = ['vp_linear', 'cosine', 'sigmoid', 'shifted', 'bisected']


def make(name):
  """All eight, `shifted` on the cosine, and one known by its schedule alone (bisection)."""
  if name == 'shifted':
    return schedules.shifted(schedules.cosine(), 2.0)
  if name == 'bisected':
    return schedules.cosine().replace(inverse=None)
  return getattr(schedules, name)()


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def times(process, n=201):
  """From t_min to t_max, dense at both ends."""
  u = np.sin(np.linspace(0, np.pi / 2, n)) ** 2
  return jnp.asarray(process.t_min + (process.t_max - process.t_min) * u, process.t_max.dtype)


def test_every_schedule_is_here():
  assert set(schedules.__all__) <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_lam_falls_and_inverts(name, x64):
  process = make(name)
  t = times(process)
  alpha, sigma = process.schedule(jnp.linspace(0, process.t_max, 201))
  assert np.isfinite(alpha).all() and np.isfinite(sigma).all() and (alpha >= 0).all() and (sigma >= 0).all()
  got = of(process, t, 'lam slope inverse')
  assert (np.diff(got.lam) < 0).all()
  # lam is known to its own rounding, about 20 ulps; over the slope this is what time can be known to
  inner = np.abs(got.lam) < 30
  with np.errstate(invalid='ignore'):  # infinite lam at the ends of some
    tolerance = 20 * 2.3e-16 * ((np.abs(got.lam) + 2) / np.abs(got.slope) + t + 0.01)
  assert (np.abs(got.inverse - t) <= tolerance)[inner].all()
  assert process.lam_inverse(jnp.inf) <= 1e-12
  np.testing.assert_allclose(process.lam_inverse(process.lam(process.t_max) - 1), process.t_max, rtol=1e-12)


FACTS = {
  'alpha': lambda process, t: process.schedule(t)[0],
  'sigma': lambda process, t: process.schedule(t)[1],
  'rates': lambda process, t: process.rates(t),
  'lam': lambda process, t: process.lam(t),
  'slope': lambda process, t: jax.jvp(process.lam, (t,), (jnp.ones_like(t),))[1],
  'inverse': lambda process, t: process.lam_inverse(process.lam(t)),
  'drift': lambda process, t: process.drift(t),
  'diffusion': lambda process, t: process.g2(t),
}


def of(process, t, names):
  """These facts, computed op by op: cheaper than a program for each schedule, and 201 times share the operations."""
  return SimpleNamespace(**{name: np.asarray(FACTS[name](process, t)) for name in names.split()})


@pytest.mark.parametrize('name', NAMES)
def test_float32_against_float64(name):
  """Both coefficients within 16 ulps of float64, times the conditioning 1 + |log| of an exponential; lam likewise.

  A shifted process goes through tau, known to an ulp of 1: another 2 ulps times d alpha / d tau < 2.
  """
  single = make(name)
  t = times(single)
  with jax.enable_x64(True):
    double = make(name)
    fine = np.asarray(t, np.float64)
    want = of(double, fine, 'alpha sigma lam slope')
  got, eps = of(single, t, 'alpha sigma lam'), 1.2e-7
  through_tau = 4 * eps * (name == 'shifted')
  for a, b in ((got.alpha, want.alpha), (got.sigma, want.sigma)):
    assert (np.abs(a - b) <= 16 * eps * b * (1 + np.abs(np.log(np.maximum(b, 1e-30)))) + through_tau).all()
  lam, inner = want.lam, np.abs(want.lam) < 12
  bound = 16 * eps * (2 + np.abs(lam[inner])) + through_tau / np.minimum(want.alpha, want.sigma)[inner]
  assert (np.abs(got.lam[inner] - lam[inner]) <= bound).all()
  back = np.asarray(single.lam_inverse(jnp.asarray(lam, jnp.float32)))
  tolerance = 16 * eps * ((2 + np.abs(lam[inner])) / np.abs(want.slope[inner]) + fine[inner] + 0.01)
  assert (np.abs(back - fine)[inner] <= tolerance).all()


@pytest.mark.parametrize('name', NAMES)
def test_rates_match_differences(name, x64):
  """Central differences of step h err by h^2 f'''/6, far below 1e-5 away from t = 0; and g^2 = -2 sigma^2 lam'."""
  process = make(name)
  t = jnp.linspace(0.05, 0.95, 201) * process.t_max
  h = 1e-5 * process.t_max
  at = of(process, t, 'sigma rates slope diffusion')
  high, low = (of(process, near, 'alpha sigma') for near in (t + h, t - h))
  for rate, a, b in zip(at.rates, (high.alpha, high.sigma), (low.alpha, low.sigma), strict=True):
    np.testing.assert_allclose(rate, (a - b) / (2 * h), rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(at.diffusion, -2 * at.sigma**2 * at.slope, rtol=1e-9)


def test_drift_and_diffusion_closed_forms(x64):
  """beta, g^2 and f of each published schedule, written out: arXiv:2011.13456 app. B and C, arXiv:2206.00364 tab. 1."""
  t = jnp.linspace(0.01, 0.99, 201)
  beta = 0.1 + t * 19.9
  vp, sub, ve, edm, flow = (make(n) for n in ('vp_linear', 'sub_vp', 've', 'edm', 'flow'))
  alpha = vp.schedule(t)[0]
  closed = [
    (vp, t, -beta / 2, beta),
    (sub, t, -beta / 2, beta * (1 - alpha**4)),
    (ve, t, 0 * t, 2 * ve.schedule(t)[1] ** 2 * np.log(5000.0)),
    (edm, 80 * t, 0 * t, 160 * t),
    (flow, t, -1 / (1 - t), 2 * t / (1 - t)),
  ]
  for process, at, f, g2 in closed:
    got = of(process, at, 'drift diffusion')
    np.testing.assert_allclose(got.drift, f, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got.diffusion, g2, rtol=1e-9)
  np.testing.assert_allclose(sub.schedule(t)[1], 1 - alpha**2, rtol=1e-10)


@pytest.mark.parametrize('name', PRESERVING)
def test_variance_is_preserved(name, x64):
  alpha, sigma = make(name).schedule(jnp.linspace(0, 0.99, 201))
  np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-12)


def test_published_forms(x64):
  t = np.linspace(0.0, 0.99, 201)
  alpha, _ = make('cosine').schedule(jnp.asarray(t))
  np.testing.assert_allclose(
    alpha, np.cos(np.pi / 2 * (t + 0.008) / 1.008) / np.cos(np.pi / 2 * 0.008 / 1.008), atol=1e-14
  )
  logistic = lambda u: 1 / (1 + np.exp(-u / 0.7))  # noqa: E731
  alpha, _ = schedules.sigmoid(-2.0, 3.0, 0.7).schedule(jnp.asarray(t))
  gamma = (logistic(3.0) - logistic(-2 + 5 * t)) / (logistic(3.0) - logistic(-2.0))
  np.testing.assert_allclose(alpha**2, gamma, atol=1e-14)


def with_number(name, v):
  """A process as a function of one of its numbers, and the value to vary it about."""
  build = {
    'vp_linear': lambda: schedules.vp_linear(0.1, 20 * v),
    'cosine': lambda: schedules.cosine(0.008 * v),
    'sub_vp': lambda: schedules.sub_vp(0.1, 20 * v),
    've': lambda: schedules.ve(0.01, 50 * v),
    'sigmoid': lambda: schedules.sigmoid(tau=v),
    'mean_reverting': lambda: schedules.mean_reverting(0.2 * v, end=0.005 * v),
    'shifted': lambda: schedules.shifted(schedules.cosine(), 2 * v),
    'bisected': lambda: schedules.cosine(0.008 * v).replace(inverse=None),
  }
  return build[name]()


@pytest.mark.parametrize('name', [name for name in NAMES if name not in ('edm', 'flow')])
def test_lam_inverse_derivatives(name, x64):
  """By lam 1 / lam'; by a number of the schedule -(d lam / d number) / lam', also through bisection."""
  process, h = with_number(name, 1.0), 1e-4
  t = 0.4 * process.t_max
  lam, rate = (FACTS[name](process, t) for name in ('lam', 'slope'))
  np.testing.assert_allclose(jax.grad(process.lam_inverse)(lam), 1 / rate, rtol=1e-9)
  along = jax.tree.map(lambda a, b: (a - b) / (2 * h), with_number(name, 1 + h), with_number(name, 1 - h))
  moved = jax.jvp(lambda p: p.lam_inverse(lam), (process,), (along,))[1]
  lifted = jax.jvp(lambda p: p.lam(t), (process,), (along,))[1]
  np.testing.assert_allclose(moved, -lifted / rate, rtol=1e-8)
  assert abs(moved) > 1e-4
  backward = jax.grad(lambda p: p.lam_inverse(lam))(process)
  along_back = sum(jnp.vdot(g, a) for g, a in zip(jax.tree.leaves(backward), jax.tree.leaves(along), strict=True))
  np.testing.assert_allclose(along_back, moved, rtol=1e-9)


@pytest.mark.parametrize('name', NAMES)
def test_posterior_is_bayes(name, x64):
  """q(x_s | x_t, x0) by precisions: prior N(alpha_s x0, sigma_s^2) and x_t = r x_s + noise, r = alpha_t / alpha_s."""
  process = make(name)
  x, x0 = jnp.asarray([0.3, -1.2]), jnp.asarray([0.7, 0.1])
  t, s = jnp.asarray([0.5, 0.9]) * process.t_max, jnp.asarray([0.2, 0.85]) * process.t_max
  (a_t, s_t), (a_s, s_s) = process.schedule(t), process.schedule(s)
  r = a_t / a_s
  noise = s_t**2 - r**2 * s_s**2
  precision = 1 / s_s**2 + r**2 / noise
  mean, std = process.posterior(x[:, None], x0[:, None], t, s)
  np.testing.assert_allclose(std[:, 0] ** 2, 1 / precision, rtol=1e-8)
  np.testing.assert_allclose(mean[:, 0], (a_s * x0 / s_s**2 + r * x / noise) / precision, rtol=1e-8)


def test_posterior_ends():
  flow = make('flow')
  x, x0 = jnp.asarray([[0.3]]), jnp.asarray([[0.7]])
  mean, std = flow.posterior(x, x0, 1.0, 0.4)  # x_1 is noise alone: q(x_s | x0)
  np.testing.assert_allclose([mean[0, 0], std], [0.6 * 0.7, 0.4], rtol=1e-6)
  mean, std = flow.posterior(x, x0, 0.5, 0.0)
  np.testing.assert_allclose([mean[0, 0], std], [0.7, 0.0], rtol=1e-6)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('shift', [0.5, 3.0])
def test_shifted_moves_lam(name, shift, x64):
  """lam falls by log shift at every time up to the end, and stays strictly decreasing: no part of it saturates."""
  base = make(name)
  process = schedules.shifted(base, shift)
  t = times(process, 203)[1:-1]
  got, plain = of(process, t, 'lam slope'), of(base, t, 'lam slope')
  np.testing.assert_allclose(got.lam, plain.lam - np.log(shift), atol=1e-7)
  assert (np.diff(got.lam) < 0).all()
  np.testing.assert_allclose(got.slope, plain.slope, rtol=1e-5)


def test_shifted_flow_closed_form():
  """tau = s t / (1 + (s - 1) t), to an ulp of 1 near t = 1, with its rates at both ends, where lam is infinite."""
  process, s = schedules.shifted(make('flow'), 3.0), 3.0
  t = jnp.linspace(0, 1, 201)
  tau = s * t / (1 + (s - 1) * t)
  alpha, sigma = process.schedule(t)
  np.testing.assert_allclose(sigma, tau, rtol=3e-6, atol=1e-12)
  np.testing.assert_allclose(alpha, (1 - t) / (1 + (s - 1) * t), rtol=3e-6, atol=1.2e-7)
  rate = s / (1 + (s - 1) * t) ** 2
  np.testing.assert_allclose(process.rates(t), [-rate, rate], rtol=3e-6)
  curve = jax.jit(jax.vmap(jax.grad(jax.grad(lambda t: process.schedule(t)[1]))))(t)
  np.testing.assert_allclose(curve, -2 * s * (s - 1) / (1 + (s - 1) * t) ** 3, rtol=1e-5)
  by_shift = jax.grad(lambda p: p.schedule(jnp.asarray(0.4))[1])(process).schedule.args[1]
  np.testing.assert_allclose(by_shift, 0.4 * 0.6 / (1 + 2 * 0.4) ** 2, rtol=1e-5)


def test_mean_reverting_is_the_published_schedule(x64):
  """theta from the drift, g^2 = 2 spread^2 theta, and the released code's hundred-step sums, which are O(1/100) off."""
  process = make('mean_reverting')
  t = jnp.linspace(0.01, 1, 100)
  got = of(process, t, 'alpha sigma drift diffusion')
  u = np.pi / 2 / 1.008
  theta = 1 - (np.cos(u * (np.asarray(t) + 0.008)) / np.cos(u * 0.008)) ** 2
  np.testing.assert_allclose(got.drift / got.drift[-1], theta / theta[-1], rtol=1e-9)
  np.testing.assert_allclose(got.diffusion, -2 * (50 / 255) ** 2 * got.drift, rtol=1e-9)
  np.testing.assert_allclose(got.sigma, 50 / 255 * np.sqrt(1 - got.alpha**2), rtol=1e-9)
  assert got.alpha[-1] == pytest.approx(0.005, rel=1e-12)
  knots = np.cos(u * (np.arange(103) / 102 + 0.008)) ** 2 / np.cos(u * 0.008) ** 2
  sums = np.cumsum(1 - knots[1:-1])
  sums = (sums - sums[0])[1:]
  np.testing.assert_allclose(got.alpha, np.exp(np.log(0.005) * sums / sums[-1]), atol=0.02)
  assert float(process.schedule(jnp.asarray(0.0))[0]) == 1 and float(process.schedule(jnp.asarray(0.0))[1]) == 0


def test_perturb_velocity_prior_on_trees():
  """Modalities may have times of their own; shapes broadcast; the velocity is the derivative of the line."""
  process = make('flow')
  x0 = {'a': jnp.ones((3, 2)), 'b': jnp.full((3, 4, 1), 2.0)}
  eps = jax.tree.map(lambda x: -x, x0)
  t = {'a': jnp.asarray([0.0, 0.5, 1.0]), 'b': 0.25}
  moved = process.perturb(x0, eps, t)
  np.testing.assert_allclose(moved['a'][:, 0], [1, 0, -1])
  np.testing.assert_allclose(moved['b'], np.full((3, 4, 1), 1.0))
  assert jax.tree.map(jnp.shape, process.velocity(x0, eps, 0.3)) == jax.tree.map(jnp.shape, x0)
  np.testing.assert_allclose(process.velocity(x0, eps, t)['b'], -4.0)
  batch = keys.per_sample(jax.random.key(0), 4000)
  edm = make('edm')
  z = np.asarray(edm.prior(batch, jnp.zeros((4000, 2))))
  assert abs(z.std() / 80 - 1) < 5 / np.sqrt(2 * 8000)
  assert expand(jnp.ones(3), x0['b']).shape == (3, 1, 1) and expand(2.0, x0['b']).shape == ()


def test_numbers_are_leaves():
  """Another number, or the same one as int, float or array, is the same program."""
  count = 0

  @jax.jit
  def run(process, t):
    nonlocal count
    count += 1
    return process.lam_inverse(process.lam(t))

  for process in (schedules.ve(0.01, 50), schedules.ve(0.02, 40.0), schedules.ve(np.float32(0.01), jnp.asarray(50))):
    run(process, 0.5)
  assert count == 1


@pytest.mark.parametrize(
  ('build', 'words'),
  [
    (lambda: schedules.vp_linear(beta_min=-1), 'beta_min: got -1'),
    (lambda: schedules.ve(2, 1), 'sigma_min, sigma_max: got 2, 1'),
    (lambda: schedules.cosine(t_max=1.5), 't_max: got 1.5'),
    (lambda: schedules.sigmoid(tau=0), 'tau: got 0'),
    (lambda: schedules.shifted(schedules.flow(), 0), 'shift: got 0'),
    (lambda: schedules.mean_reverting(end=1.0), 'end, 1: got 1.0'),
    (lambda: schedules.mean_reverting(spread=-1), 'spread: got -1'),
  ],
)
def test_bad_numbers_are_refused(build, words):
  with pytest.raises(ValueError, match=words):
    build()
