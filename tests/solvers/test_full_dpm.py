"""The full covariance of x0 given x_t, and ancestral steps that have it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import noise_levels, schedules, solvers
from diffjax.exact import gaussian, mixture
from diffjax.guidance import covariance as page
from diffjax.guidance import with_covariance
from diffjax.prediction import as_denoiser
from diffjax.solvers import grids, sample

PROCESS = schedules.vp_linear()


def end(solver, denoise, covariance, ts):
  """The covariance at the end of a chain whose steps are x' = A x + R z, from the exact law at the start."""
  alpha, sigma, _ = noise_levels.at(PROCESS, ts)
  now = alpha[0] ** 2 * covariance + sigma[0] ** 2 * np.eye(2)
  x = jnp.asarray(np.concatenate([np.eye(2), np.zeros((1, 2))]))

  @jax.jit
  def step(row):
    pred = denoise(x, row.t)
    mean = solver.mean(x, pred, row)
    return (mean[:2] - mean[2]).T, solver.colour(x, pred, row, x)[:2]

  for i in range(len(ts) - 1):
    a, r = step(jax.tree.map(lambda leaf: leaf[i], jax.tree.map(jnp.asarray, solver.rows)))  # noqa: B023
    now = a @ now @ a.T + r @ r.T
  return now, alpha[-1] ** 2 * covariance + sigma[-1] ** 2 * np.eye(2)


@pytest.mark.parametrize('products', [None, 2])
def test_a_correlated_gaussian_is_exact_after_any_number_of_steps(products, monkeypatch, x64):
  """N(0, [[1, .9], [.9, 1]]), K = 3, 10 and eta 0 and 1: to 1e-10, by the matrix and by a Krylov space of its size."""
  covariance = np.array([[1, 0.9], [0.9, 1]])
  denoise = with_covariance(gaussian([0.0, 0.0], covariance).denoiser(PROCESS), 2, products or 10)
  if products:
    monkeypatch.setattr(page, 'DENSE', 0)
  for k, eta in ((3, 1.0), (10, 0.0)):
    ts = grids.uniform(PROCESS, k, to_zero=False)
    got, want = end(solvers.full_dpm(PROCESS, ts, eta=eta), denoise, covariance, ts)
    np.testing.assert_allclose(got, want, atol=1e-10)
  assert denoise.cost(0.5) == 1 + 2


def test_the_diagonal_alone_loses_the_correlation(x64):
  """K = 5 steps of SN-DPM with exact moments: more than .1 of the correlation .9 is gone, as measured elsewhere."""
  covariance = np.array([[1, 0.9], [0.9, 1]])
  ts = grids.uniform(PROCESS, 5, to_zero=False)
  alpha, sigma, _ = noise_levels.at(PROCESS, ts)
  rows = solvers.sn_dpm(PROCESS, ts).rows
  now = alpha[0] ** 2 * covariance + sigma[0] ** 2 * np.eye(2)
  for i in range(5):
    gain = alpha[i] * covariance @ np.linalg.inv(alpha[i] ** 2 * covariance + sigma[i] ** 2 * np.eye(2))
    spread = np.diag(np.diag((sigma[i] ** 2 / alpha[i]) * gain))  # Var x0 given x_t, a dimension
    a = rows.keep[i] * np.eye(2) + rows.pull[i] * gain
    now = a @ now @ a.T + rows.std[i] ** 2 * np.eye(2) + rows.pull[i] ** 2 * spread
  assert now[0, 1] / now[0, 0] < 0.8


def test_the_matrix_is_that_of_the_mixture_s_posterior(x64):
  """C = E[x0 x0^T | x] - E[x0 | x] E[x0 | x]^T, from the parts of the posterior; a square root of it squares to it."""
  covariances = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]])
  target = mixture([0.4, 0.6], [[1.0, 0.5], [-0.8, 0.2]], covariances)
  x, z = np.array([[0.3, -0.2], [1.0, 0.7]]), np.array([[1.0, -0.4], [0.2, 2.0]])

  @jax.jit
  def run(x, z):
    known = with_covariance(target.denoiser(PROCESS), 2)(x, jnp.asarray(0.4)).aux['covariance']
    twice = known.apply(jnp.sqrt, known.apply(jnp.sqrt, z))
    return known.matrix(), twice, known(z), target.posterior_parts(x, *PROCESS.schedule(0.4))[:2]

  matrix, twice, once, (log_share, means) = run(x, z)
  alpha, sigma = (float(level) for level in PROCESS.schedule(0.4))
  inner = np.linalg.inv(np.linalg.inv(covariances) + np.eye(2) * alpha**2 / sigma**2)
  share, means = np.exp(log_share), np.asarray(means)
  mean = np.einsum('bk,bkd->bd', share, means)
  second = np.einsum('bk,bkij->bij', share, inner + means[..., :, None] * means[..., None, :])
  np.testing.assert_allclose(matrix, second - mean[:, :, None] * mean[:, None, :], atol=1e-7)
  np.testing.assert_allclose(twice, once, atol=1e-12)


def test_the_krylov_space_of_a_large_example():
  """100 elements, 4 different eigenvalues, products 4 in float32: the root in closed form."""
  var = np.repeat([0.01, 0.2, 1.0, 3.0], 25).astype(np.float32)
  alpha, sigma = PROCESS.schedule(0.5)
  linear = as_denoiser(lambda x, t, cond: alpha * var / (alpha**2 * var + sigma**2) * x, PROCESS)
  known = with_covariance(linear, 100, 4)
  x = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
  got = jax.jit(lambda known, x: known(x, jnp.asarray(0.5)).aux['covariance'].apply(jnp.sqrt, x))(known, x)
  np.testing.assert_allclose(got, sigma * np.sqrt(var / (alpha**2 * var + sigma**2)) * x, atol=2e-3)
  assert known.cost(0.5) == 1 + 4


def test_refusals():
  exact = gaussian([0.0, 0.0], np.eye(2)).denoiser(PROCESS)
  solver = solvers.full_dpm(PROCESS, grids.uniform(PROCESS, 3))
  x = jnp.zeros((2, 2))
  with pytest.raises(ValueError, match='denoise: got a prediction without aux covariance'):
    sample(exact, solver, x, jax.random.key(0))
  with pytest.raises(ValueError, match=r'x: got modalities of \[2\] elements; allowed: one of 3'):
    sample(with_covariance(exact, 3), solver, x, jax.random.key(0))
  with pytest.raises(ValueError, match='size: got 0; allowed'):
    with_covariance(exact, 0)
  with pytest.raises(ValueError, match='transition: got full_dpm'):
    solver.transition(x, exact(x, 0.5), solver.rows)
