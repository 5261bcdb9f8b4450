"""Mean-reverting processes: the published updates of x by hand against solvers of y, orders, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, noise_levels, schedules, solvers
from diffjax.guidance import cfg, mean_reverting, threshold
from diffjax.guidance.mean_reverting import from_centred, initial_noise, to_centred
from diffjax.prediction import as_denoiser
from diffjax.solvers import grids, sample
from diffjax.solvers.noise import fixed

MU = np.array([2.0, -1.0])


def network(x, t, mu):
  """E[eps | x_t = x] of GM-A under x = alpha x0 + (1 - alpha) mu + sigma eps: a network of x."""
  a, c = np.pi / 2 / 1.008, np.cos(np.pi / 2 * 0.008 / 1.008)

  def total(t):  # the integral of 1 - cos^2(a (t + .008)) / c^2
    return t - (t / 2 + (jnp.sin(2 * a * (t + 0.008)) - np.sin(2 * a * 0.008)) / (4 * a)) / c**2

  alpha = jnp.exp(np.log(0.005) * total(t) / total(1.0))[:, None]
  sigma = 50 / 255 * jnp.sqrt(1 - alpha**2)
  target = exact.mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])
  return target.predict(x - (1 - alpha) * mu, alpha, sigma).eps


def denoiser(mu=None):
  return mean_reverting(as_denoiser(network, schedules.mean_reverting(), 'eps'), mu)


def problem(n=5, steps=8):
  """The process, a grid, starts in x, mu of each sample, and noise."""
  r = np.random.default_rng(0)
  process = schedules.mean_reverting()
  mu = np.broadcast_to(MU, (n, 2))
  x = mu + 50 / 255 * r.standard_normal((n, 2))
  return process, grids.uniform(process, steps, to_zero=False), x, mu, r.standard_normal((steps, n, 2))


def by_hand(update, process, ts, x, z):
  """update(i, x, x0, eps, past) for every step, past the (x0, eps) before; predictions from the network of x."""
  alpha, sigma, _ = noise_levels.at(process, ts)
  past, says = None, jax.jit(network)
  for i in range(len(ts) - 1):
    eps = np.asarray(says(x, jnp.full(len(x), ts[i]), MU))
    x0 = (x - (1 - alpha[i]) * MU - sigma[i] * eps) / alpha[i]
    x = update(i, x, x0, eps, past)
    past = x0, eps
  return x


# MR-Sampler: noise or data, ODE or SDE, order one or two; which solver of y each is
PAPER = {
  (True, False, 1): ('exponential_adams', {'order': 1, 'form': 'eps'}),
  (True, False, 2): ('exponential_adams', {'order': 2, 'form': 'eps', 'lower_final': False}),
  (False, False, 1): ('ddim', {}),
  (False, False, 2): ('exponential_adams', {'order': 2, 'lower_final': False}),
  (True, True, 1): ('sde_dpm', {}),
  (True, True, 2): ('sde_adams', {'order': 2, 'form': 'eps', 'lower_final': False}),
  (False, True, 1): ('ddpm', {}),
  (False, True, 2): ('sde_adams', {'order': 2, 'lower_final': False}),
}


@pytest.mark.parametrize('form', PAPER)
def test_solvers_of_y_are_the_published_updates_of_x(form, x64):
  """arXiv:2502.07856, its own formulas with mu in them: the same samples to 1e-12 after eight steps."""
  noise, sde, order = form
  process, ts, x, mu, z = problem()
  alpha, sigma, lam = noise_levels.at(process, ts)

  def update(i, x, x0, eps, past):
    a, s, b, r, h = alpha[i], sigma[i], alpha[i + 1], sigma[i + 1], lam[i + 1] - lam[i]
    now = eps if noise else x0
    d = 0 if order == 1 or past is None else (now - past[int(noise)]) * h / (lam[i] - lam[i - 1])
    if noise:
      twice = 2 if sde else 1
      x = b / a * x + (1 - b / a) * MU - twice * r * (np.expm1(h) * eps + (np.expm1(h) / h - 1) * d)
      return x + r * np.sqrt(np.expm1(2 * h)) * z[i] if sde else x
    if not sde:
      keep = r / s * x + (1 - r / s + r / s * a - b) * MU
      return keep - b * np.expm1(-h) * x0 + b * (np.expm1(-h) / h + 1) * d
    gone = -np.expm1(-2 * h)
    keep = r / s * np.exp(-h) * x + (1 - b / a * np.exp(-2 * h) - b * gone) * MU
    return keep + b * gone * x0 + b * (1 - gone / (2 * h)) * d + r * np.sqrt(gone) * z[i]

  name, options = PAPER[form]
  table = getattr(solvers, name)(process, ts, **options)
  y = sample(denoiser(), table, to_centred(process, x, mu, ts[0]), jax.random.key(0), mu, noise_source=fixed(z))
  want = by_hand(update, process, ts, x, z)
  np.testing.assert_allclose(from_centred(process, y, mu, ts[-1]), want, atol=1e-12 * max(1, np.abs(want).max()))


def test_the_posterior_sampler_of_ir_sde_is_ddpm(x64):
  """arXiv:2301.11699 eq. 12-13 with A, B, C of one, all and all but one steps; its variance as well."""
  process, ts, x, mu, z = problem()
  alpha, _, _ = noise_levels.at(process, ts)

  def update(i, x, x0, eps, past):
    a, b, c = alpha[i] / alpha[i + 1], alpha[i], alpha[i + 1]
    mean = a * (1 - c**2) / (1 - b**2) * (x - MU) + c * (1 - a**2) / (1 - b**2) * (x0 - MU) + MU
    return mean + 50 / 255 * np.sqrt((1 - a**2) * (1 - c**2) / (1 - b**2)) * z[i]

  y = sample(
    denoiser(),
    solvers.ddpm(process, ts),
    to_centred(process, x, mu, ts[0]),
    jax.random.key(0),
    mu,
    noise_source=fixed(z),
  )
  np.testing.assert_allclose(from_centred(process, y, mu, ts[-1]), by_hand(update, process, ts, x, z), atol=1e-12)


def test_orders_against_the_flow_of_x(x64):
  """dx/dt = theta (mu - x) + g^2 eps / (2 sigma), by 2000 classical Runge-Kutta steps: orders as for any process."""
  process, _, x, mu, _ = problem(32)
  end = 0.05

  @jax.jit
  def flow(x):
    def slope(x, t):
      f, g2, sigma = process.drift(t), process.g2(t), process.schedule(t)[1]
      return -f * (mu - x) + g2 / (2 * sigma) * network(x, jnp.full(len(x), t), mu)

    def step(x, t):
      h = (end - 1) / 2000
      k1 = slope(x, t)
      k2 = slope(x + h / 2 * k1, t + h / 2)
      k3 = slope(x + h / 2 * k2, t + h / 2)
      return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3, t + h)), None

    return jax.lax.scan(step, x, 1 + (end - 1) / 2000 * jnp.arange(2000))[0]

  want = flow(jnp.asarray(x))
  for name, order in (('ddim', 1), ('dpmpp_2m', 2), ('dpm_solver', 2), ('exponential_adams', 3)):
    errors = []
    for n in (80, 160):
      ts = noise_levels.times_of(process, np.linspace(*noise_levels.at(process, [1.0, end])[2], n + 1))
      table = solvers.pad(getattr(solvers, name)(process, ts), 160, 4)
      y = sample(denoiser(), table, to_centred(process, x, mu, 1.0), None, mu)
      errors.append(np.sqrt(np.mean((from_centred(process, y, mu, end) - want) ** 2)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25), (name, errors)


def test_starts_and_the_way_back():
  """x at the start is mu + sigma z; y and x are the same at the data; times may differ by sample, x be a pytree."""
  process, n = schedules.mean_reverting(), 4000
  mu = np.broadcast_to(MU.astype(np.float32), (n, 2))
  x = from_centred(process, initial_noise(process, mu, keys.per_sample(jax.random.key(0), n)), mu, process.t_max)
  assert np.abs(np.mean(x - mu, 0)).max() < 4 * 0.2 / np.sqrt(n)
  np.testing.assert_allclose(np.std(x - mu, 0), 50 / 255, rtol=4 / np.sqrt(2 * n))
  np.testing.assert_array_equal(from_centred(process, x, mu, 0.0), x)
  t = jnp.linspace(0, 1, n)
  np.testing.assert_allclose(from_centred(process, to_centred(process, x, mu, t), mu, t), x, atol=1e-6)
  both = to_centred(process, {'a': x}, {'a': mu}, 0.5)
  np.testing.assert_allclose(both['a'], to_centred(process, x, mu, 0.5))


def unconditional(x, t, cond):
  """A network trained around one mu, which it is not told."""
  return network(x, t, MU.astype(np.float32))


@pytest.mark.slow
def test_the_network_sees_x_and_transforms_go_around():
  """mu of the condition or of the adapter; thresholds and guidance wrap it, and the pair stays consistent."""
  process, y = schedules.mean_reverting(), np.float32([[0.3, -0.2], [0.1, 0.5]])
  mu = np.broadcast_to(MU.astype(np.float32), (2, 2))
  alone = mean_reverting(as_denoiser(unconditional, process, 'eps'), MU.astype(np.float32))
  want = network(from_centred(process, y, mu, 0.5), jnp.full(2, 0.5), mu)
  for denoise, cond in ((denoiser(), mu), (alone, None)):
    pred = denoise(y, 0.5, cond)
    np.testing.assert_allclose(pred.eps, want, rtol=1e-5)
    np.testing.assert_allclose(process.perturb(pred.x0, pred.eps, 0.5), y, atol=1e-6)
    assert np.abs(threshold(denoise, -0.1, 0.1)(y, 0.5, cond).x0).max() <= 0.1 + 1e-6
  guided = cfg(alone, 2.0, null=np.float32(0))(y, 0.5, np.ones(2, np.float32))  # both branches say the same
  np.testing.assert_allclose(guided.eps, want, rtol=1e-5)


def test_refusals():
  with pytest.raises(ValueError, match='denoise: got Clipped; allowed: a Denoiser, before any transform'):
    mean_reverting(threshold(denoiser()))
  with pytest.raises(ValueError, match='cond: got None; allowed: mu'):
    denoiser()(np.zeros((2, 2), np.float32), 0.5)
