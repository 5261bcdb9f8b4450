"""Posterior methods on a plane's mixture of three, whose posterior is exact: replacement, AFDPS, active subsampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, inverse, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.solvers import grids, sample
from diffjax.steering import particle_keys, particles

MEANS = [[-2, 0], [2, 0], [0, 2.5]]
PRIOR = exact.mixture([0.5, 0.3, 0.2], MEANS, [0.25] * 3)
ROW = np.float32([[1, 0.5]])
OBSERVED = inverse.observation(inverse.matrix((2,), ROW), [[0.3]], inverse.gaussian(0.5))
SHARES, MEAN = np.array([0.0498, 0.1959, 0.7542]), np.array([-0.118, 1.698])  # nearest component, of the posterior


def shares(x, weights=None):
  """The weight of the samples nearest to each component of the posterior."""
  posterior = PRIOR.observe(ROW, [0.3], [[0.25]])
  near = np.argmin(((np.asarray(x)[:, None] - np.asarray(posterior.means)) ** 2).sum(-1), 1)
  weights = np.full(len(x), 1 / len(x)) if weights is None else weights
  return np.array([weights[near == k].sum() for k in range(3)])


def test_replacement_is_its_recursion():
  """On a Gaussian of correlation .8, y = 1: DDPM's law by hand in float64, biased against the slope .8 of the truth.

  x_1 is alpha + sigma z at every level; x_2 is linear in it, so its mean and covariance with nothing else follow.
  """
  process, ts = schedules.vp_linear(), np.linspace(1, 0.02, 12)
  cov, count = np.array([[1, 0.8], [0.8, 1]]), 4000
  base = exact.gaussian([0.0, 0.0], cov).denoiser(process)
  observation = inverse.observation(inverse.mask((2,), [1, 0]), [[1.0, 0.0]], inverse.gaussian(1e-4))
  solver = inverse.replacement(solvers.ddpm(process, ts), process, observation)
  x = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
  out = np.asarray(sample(base, solver, x, jax.random.key(0)))
  mean, var = 0.0, 1.0
  for t, s in zip(ts, ts[1:], strict=False):
    (a, sigma), (b, after) = (np.asarray(process.schedule(jnp.asarray(u)), float) for u in (t, s))
    gain = a * cov @ np.linalg.inv(a**2 * cov + sigma**2 * np.eye(2))
    h = np.log(b / after) - np.log(a / sigma)
    to_x0, to_x = -b * np.expm1(-2 * h), after / sigma * np.exp(-h)
    mean = (to_x0 * gain[1, 1] + to_x) * mean + to_x0 * gain[1, 0] * a
    var = (to_x0 * gain[1, 1] + to_x) ** 2 * var + (to_x0 * gain[1, 0] * sigma) ** 2 - after**2 * np.expm1(-2 * h)
  np.testing.assert_allclose(out[:, 0], 1, rtol=1e-6)
  assert abs(out[:, 1].mean() - mean) < 4 * np.sqrt(var / count)
  assert abs(out[:, 1].var() / var - 1) < 4 * np.sqrt(2 / count)
  assert mean < 0.75  # the truth is .8


def test_replacement_under_any_solver_ends_with_what_was_seen():
  process, ts = schedules.cosine(), np.linspace(0.95, 0.0, 6)
  observation = inverse.observation(inverse.matrix((2,), [[0.6, 0.8]]), [[0.7]], inverse.gaussian(1e-3))
  x = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
  for build, fixed in ((solvers.dpmpp_2m, False), (solvers.heun, True)):
    solver = inverse.replacement(build(process, ts), process, observation, fixed=fixed)
    out = sample(PRIOR.denoiser(process), solver, x, jax.random.key(0))
    np.testing.assert_allclose(out @ np.float32([0.6, 0.8]), 0.7, atol=1e-5)
    assert solver.nfe == build(process, ts).nfe


def ensemble(count, runs, steps, seed=0, kind=inverse.afdps):
  process = schedules.vp_linear()
  ts = np.linspace(1, 0.03, steps + 1) ** 2
  solver = particles(solvers.euler_maruyama(process, ts), count, whole=True)
  keys_ = particle_keys(keys.per_sample(jax.random.key(seed), runs), count)
  x = inverse.afdps_start(process, OBSERVED, jax.random.key(seed + 1), jnp.zeros((runs * count, 2)), data_std=1.5)
  return sample(kind(PRIOR.denoiser(process), OBSERVED), solver, x, keys_)


def test_the_particles_of_afdps_begin_in_their_law():
  """N(0, I) exp(-mu_T) at alpha = .6: mean and covariance of the Gaussian posterior, 4 standard errors."""
  process = schedules.cosine()
  t = 0.5
  alpha, sigma = (float(v) for v in process.schedule(jnp.asarray(t)))
  x = np.asarray(inverse.afdps_start(process, OBSERVED, jax.random.key(0), jnp.zeros((4000, 2)), t, 1.0))
  wide = alpha**2 * 0.25 + sigma**2
  cov = np.linalg.inv(np.eye(2) + ROW.T @ ROW / wide)
  np.testing.assert_allclose(x.mean(0), cov @ ROW[0] * alpha * 0.3 / wide, atol=4 / np.sqrt(4000))
  np.testing.assert_allclose(np.cov(x.T), cov, atol=4 * np.sqrt(2 / 4000))


def test_the_weights_of_afdps_are_those_of_its_law():
  """The rate is d log of the tempered law along the particles' own generator, checked by finite differences in t.

  For Q = p_t e^{-mu_t}: -dQ/dt = -div(b' Q) + V^2 lap Q / 2 + rate Q + const(t) Q, b' the guided drift.
  """
  process = schedules.vp_linear()
  guided = inverse.afdps(PRIOR.denoiser(process), OBSERVED)
  with jax.enable_x64(True):
    prior, t = exact.mixture([0.5, 0.3, 0.2], MEANS, [0.25] * 3), jnp.asarray(0.3)
    process = schedules.vp_linear()
    observed = inverse.observation(inverse.matrix((2,), ROW), [[0.3]], inverse.gaussian(0.5))
    guided = inverse.afdps(prior.denoiser(process), observed)

    def log_q(x, t):
      alpha, sigma = process.schedule(t)
      miss = jnp.dot(ROW[0], x) - alpha * 0.3
      return prior.log_density(x[None], alpha, sigma)[0] - miss**2 / 2 / (alpha**2 * 0.25 + sigma**2)

    def drift(x):
      pred = guided(x[None], t)
      return (-process.drift(t) * x - process.g2(t) * pred.eps[0] / process.schedule(t)[1]), pred.aux['weight_rate'][0]

    @jax.jit
    @jax.vmap
    def left(x):
      """What the weight has to make up for, over Q."""
      slope, bend = jax.grad(log_q)(x, t), jnp.trace(jax.hessian(log_q)(x, t))
      jacobian, (b, rate) = jax.jacobian(lambda x: drift(x)[0])(x), drift(x)
      flow = -jnp.trace(jacobian) - b @ slope + process.g2(t) / 2 * (bend + slope @ slope)
      return -jax.grad(log_q, 1)(x, t) - flow, rate

    need, rate = left(jnp.asarray(np.random.default_rng(0).standard_normal((6, 2))))
  np.testing.assert_allclose(rate - rate[0], need - need[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_afdps_converges_to_the_posterior():
  """1024 particles, 500 steps, 16 runs: shares within TV .05, mean within .1; DPS is off by .09 and more."""
  out = ensemble(1024, 16, 500)
  x, weights = np.asarray(out.x), np.asarray(out.weights)
  got = np.mean([shares(a, w) for a, w in zip(x, weights, strict=True)], 0)
  assert np.abs(got - SHARES).sum() / 2 < 0.05
  np.testing.assert_allclose((weights[..., None] * x).sum(1).mean(0), MEAN, atol=0.1)
  process = schedules.edm()
  start = 80 * np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32)
  solver = solvers.ancestral(process, grids.karras(process, 128))
  dps = sample(inverse.dps(PRIOR.denoiser(process), OBSERVED), solver, start, jax.random.key(2))
  assert np.abs(shares(dps) - SHARES).sum() / 2 > 0.09


@pytest.mark.slow
def test_the_error_of_afdps_falls_as_particles_grow():
  """1-D prior N(0, .5), r^2 = .25, y = 1: exponent of the root mean square error of the mean in [-.6, -.3]."""
  process, counts = schedules.vp_linear(), (64, 256, 1024)
  prior = exact.gaussian([0.0], 0.5)
  observed = inverse.observation(inverse.matrix((1,), [[1.0]]), [[1.0]], inverse.gaussian(0.5))
  ts, errors = np.linspace(1, 0.03, 301) ** 2, []
  for count in counts:
    runs = 64
    solver = particles(solvers.euler_maruyama(process, ts), count, whole=True)
    x = inverse.afdps_start(process, observed, jax.random.key(1), jnp.zeros((runs * count, 1)))
    key = particle_keys(keys.per_sample(jax.random.key(0), runs), count)
    out = sample(inverse.afdps(prior.denoiser(process), observed), solver, x, key)
    errors.append(np.sqrt(np.mean(((out.weights * out.x[..., 0]).sum(1) - 2 / 3) ** 2)))
  exponent = np.polyfit(np.log(counts), np.log(errors), 1)[0]
  assert -0.65 < exponent < -0.3, errors


def test_active_subsampling_looks_where_the_variance_is():
  """A Gaussian whose deviations differ by 2: the picks are those of the greatest posterior variance, 80% of them.

  Two elements are correlated, so that one tells of the other and is not looked at next.
  """
  std = np.array([0.2, 0.4, 0.8, 1.6, 0.1, 0.05, 1.5])
  cov = np.diag(std**2)
  cov[3, 6] = cov[6, 3] = 0.995 * 1.6 * 1.5
  process = schedules.cosine()
  prior = exact.gaussian(np.zeros(7), cov)
  truth = prior.sample(keys.per_sample(jax.random.key(0), 24))
  solver = solvers.ddpm(process, np.linspace(0.98, 0.01, 41))
  noise = inverse.gaussian(0.05)
  out = inverse.active(prior.denoiser(process), solver, truth, jax.random.key(1), picks=3, guide=exactly, noise=noise)
  want, left = [], cov.copy()
  for _ in range(3):
    pick = int(np.argmax(np.diag(left)))
    want.append(pick)
    left = left - np.outer(left[:, pick], left[pick]) / (left[pick, pick] + 0.0025)
  assert want == [3, 2, 1]
  assert (np.asarray(out.picks) == want).mean() >= 0.8
  assert (out.keep.sum(1) == 3).all() and out.x.shape == (24, 16, 7)


def exactly(denoise, observation):
  return inverse.pigdm(denoise, observation, covariance='exact', steps=4)


def test_disagreement_is_the_entropy_of_a_mixture():
  """A Gaussian element has more of it than one where a rare particle lies far off, whatever their variances."""
  r = np.random.default_rng(0)
  x0 = r.standard_normal((40, 16, 2))
  x0[:, :, 1] = np.where(r.uniform(size=(40, 16)) < 0.1, 3 * np.sign(x0[:, :, 1]), 0) * 1.3
  worth = inverse.disagreement(jnp.asarray(x0), jnp.eye(2), 0.1)
  assert (worth[:, 0] > worth[:, 1]).mean() > 0.95
  by_hand = -sum(np.log(sum(np.exp(-((a - b) ** 2) / 0.02) for b in x0[0, :, 0])) for a in x0[0, :, 0])
  np.testing.assert_allclose(worth[0, 0], by_hand, rtol=1e-5)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda p: inverse.pigdm(PRIOR.denoiser(p), OBSERVED, covariance='full'), "covariance: got 'full'"),
    (lambda p: inverse.pigdm(PRIOR.denoiser(p), OBSERVED, data_std=0.0), 'data_std: got 0.0'),
    (lambda p: inverse.flowdps(PRIOR.denoiser(p), OBSERVED, steps=0), 'steps: got 0'),
    (lambda p: inverse.afdps(PRIOR.denoiser(p), OBSERVED, noise=0), 'noise: got 0'),
    (lambda p: inverse.daps(p, [0.9, 0.1], OBSERVED, inner=0), 'inner: got 0'),
    (lambda p: inverse.daps(p, [0.9, 0.1], inverse.unseen(OBSERVED.operator)), 'observation: got one without y'),
    (lambda p: inverse.replacement(solvers.ddim(p, [0.9, 0.1]), p, inverse.unseen(OBSERVED.operator)),
     'observation: got one without y'),
    (lambda p: inverse.flowdps_steps(schedules.edm(), [80.0, 1.0]), 'process: got sigma = 80'),
    (lambda p: inverse.dps(PRIOR.denoiser(p), inverse.unseen(OBSERVED.operator))(np.zeros((2, 2)), 0.5, np.zeros(2, int)),
     "cond: got no 'observed'"),
    (lambda p: inverse.active(PRIOR.denoiser(p), solvers.ddim(p, [0.9, 0.1]), np.zeros((1, 2)), jax.random.key(0),
                              picks=2), 'picks: got 2'),
  ],
)  # fmt: skip
def test_refusals(make, message):
  with pytest.raises(InputError, match=message):
    make(schedules.cosine())
