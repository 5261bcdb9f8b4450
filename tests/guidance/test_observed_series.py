"""TSDiff's uses of a model of whole series, on a Gaussian process whose every conditional is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, guidance, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.solvers import grids

LENGTH, SEEN, SAMPLES = 16, 12, 60
PROCESS = schedules.vp_linear()
LAGS = np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)))
COVARIANCE = 0.9**LAGS  # AR(1) of variance 1
TARGET = exact.gaussian(np.zeros(LENGTH), COVARIANCE)


def conditional(y):
  """Mean (n, 4) and covariance of what follows the first SEEN values."""
  gain = COVARIANCE[SEEN:, :SEEN] @ np.linalg.inv(COVARIANCE[:SEEN, :SEEN])
  return y[:, :SEEN] @ gain.T, COVARIANCE[SEEN:, SEEN:] - gain @ COVARIANCE[:SEEN, SEEN:]


def crps(samples, truth):
  """Of samples (S, ...) by E|x - y| - E|x - x'| / 2, the mean over all the rest."""
  ordered = np.sort(samples, 0)
  n = len(samples)
  weights = (2 * np.arange(1, n + 1) - n - 1).reshape(-1, *[1] * (samples.ndim - 1))
  return np.mean(np.abs(samples - truth).mean(0) - np.sum(weights * ordered, 0) / n**2)


def test_forecasts_are_near_the_conditional_law():
  """24 series, 4 values to forecast, quantile energies, sample i of S at i / (S + 1): the central 80% of samples holds
  70 to 90% of the truth. DDPM's form has a CRPS at most 1.15 x that of draws of the conditional; DDIM's, whose law has
  the bias of a gradient through the network without noise, a greater one.
  """
  n, rng = 24, np.random.default_rng(0)
  truth = rng.multivariate_normal(np.zeros(LENGTH), COVARIANCE, n)
  mask = np.broadcast_to(np.arange(LENGTH) < SEEN, (SAMPLES * n, LENGTH))
  rows = np.tile(np.where(mask[:n], truth, np.nan), (SAMPLES, 1)).astype(np.float32)
  quantiles = np.repeat(np.arange(1, SAMPLES + 1) / (SAMPLES + 1), n)
  denoise, ts = TARGET.denoiser(PROCESS), grids.uniform(PROCESS, 60, to_zero=False)
  x = jnp.asarray(rng.normal(size=rows.shape), jnp.float32)
  guided = guidance.observed_series(denoise, rows, mask, 8.0, quantiles=quantiles)
  run = jax.jit(lambda x, key: guidance.observed_ddpm(denoise, rows, mask, ts, x, key, 8.0, quantiles=quantiles))
  mean, covariance = conditional(truth)
  ideal = mean + rng.multivariate_normal(np.zeros(LENGTH - SEEN), covariance, (SAMPLES, n))
  wanted, errors = truth[:, SEEN:], {}
  outs = dict(ddpm=run(x, jax.random.key(0)), ddim=solvers.sample(guided, solvers.ddim(PROCESS, ts), x))
  for form, out in outs.items():
    drawn = np.asarray(out).reshape(SAMPLES, n, LENGTH)[..., SEEN:]
    low, high = np.quantile(drawn, (0.1, 0.9), axis=0)
    assert 0.7 <= np.mean((low < wanted) & (wanted < high)) <= 0.9, form
    errors[form] = crps(drawn, wanted) / crps(ideal, wanted)
  assert errors['ddpm'] <= 1.15 and errors['ddpm'] < errors['ddim'], errors
  assert guidance.cost(guided, 0.5) == 2


def test_refining_ends_where_its_energy_says():
  """y = kappa (2 sigma^2 alpha^2 C^{-2} + kappa)^{-1} b, to 1e-4; and a noisy forecast comes nearer to the truth."""
  rng, t, kappa = np.random.default_rng(1), 0.2, 0.5
  with jax.enable_x64(True):
    target = exact.gaussian(np.zeros(LENGTH), COVARIANCE)
    alpha, sigma = (float(c) for c in PROCESS.schedule(jnp.asarray(t)))
    truth = rng.multivariate_normal(np.zeros(LENGTH), COVARIANCE, 4)
    b = truth + rng.normal(size=truth.shape)
    refine = jax.jit(
      lambda b: guidance.refined(
        target.denoiser(PROCESS), b, jax.random.key(0), t=t, tie=kappa, steps=300, rate=0.15, pairs=1
      )
    )
    got = np.asarray(refine(b))
  inverse = np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * np.eye(LENGTH))
  want = kappa * b @ np.linalg.inv(2 * sigma**2 * alpha**2 * inverse @ inverse + kappa * np.eye(LENGTH))
  np.testing.assert_allclose(got, want, atol=1e-4)
  assert np.mean(np.abs(got - truth)) <= 0.85 * np.mean(np.abs(b - truth))


def test_energies_by_hand():
  """Gaps are not read, were they NaN; the quantile's slope is -q below what was observed and 1 - q above."""
  y, mask = jnp.asarray([[1.0, jnp.nan, 0.0]]), jnp.asarray([[True, False, True]])
  zeroed, x0 = jnp.where(mask, y, 0), jnp.asarray([[0.5, 3.0, 2.0]])
  np.testing.assert_allclose(guidance.mean_energy(zeroed, mask, x0), [-(0.25 + 4)])
  energy = lambda x0: guidance.quantile_energy(zeroed, mask, jnp.asarray([0.2]), x0).sum()  # noqa: E731
  np.testing.assert_allclose(energy(x0), -(0.2 * 0.5 + 0.8 * 2))
  np.testing.assert_allclose(jax.grad(energy)(x0), [[0.2, 0.0, -0.8]], rtol=1e-6)


def test_the_gradient_at_the_new_state_and_at_the_old():
  """One step written out, from the same noise."""
  denoise, ts, scale = TARGET.denoiser(PROCESS), jnp.asarray([0.6, 0.4]), 2.0
  x = jnp.asarray(np.random.default_rng(2).normal(size=(3, LENGTH)), jnp.float32)
  y, mask = jnp.ones((1, LENGTH)), jnp.arange(LENGTH)[None] < 5
  own = keys.per_sample(jax.random.key(3), 3)

  @jax.jit
  def written(x):
    mean, std = PROCESS.posterior(x, denoise(x, 0.6).x0, 0.6, 0.4)
    new = mean + std * keys.normal(keys.fold(own, 0), x)
    slope = jax.grad(lambda x: -jnp.sum(jnp.where(mask, (y - denoise(x, 0.6).x0) ** 2, 0)))
    run = lambda at: guidance.observed_ddpm(denoise, y, mask, ts, x, own, scale, at=at)  # noqa: E731
    return [(run(at), new + scale * std**2 * slope(where)) for at, where in (('new', new), ('old', x))]

  for got, want in written(x):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused():
  denoise, y = TARGET.denoiser(PROCESS), np.zeros((2, LENGTH))
  for call, told in (
    (lambda: guidance.observed_series(denoise, y, np.ones((2, 3))), r'mask: got shape \(2, 3\)'),
    (lambda: guidance.observed_series(denoise, y, y == 0, quantiles=[0.0, 0.5]), 'quantiles: got'),
    (lambda: guidance.observed_ddpm(denoise, y, y == 0, [0.5, 0.1], y, jax.random.key(0), at='x'), "at: got 'x'"),
    (lambda: guidance.refined(denoise, y, jax.random.key(0), t=0.5, rate=0.0), 'rate, steps, pairs: got 0.0'),
  ):
    with pytest.raises(InputError, match=told):
      call()
