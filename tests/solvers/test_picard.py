"""Parallel sampling by Picard's iteration: its fixed point is the sequential sample, in fewer sweeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import schedules, solvers
from diffjax.exact import gaussian, mixture
from diffjax.guidance.transform import Transform
from diffjax.solvers import grids, picard, sample

EDM = schedules.edm(0.01, 10.0)
ANGLES = 2 * np.pi * np.arange(8) / 8
RING = mixture(np.arange(1, 9) / 36, np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1), [0.01] * 8)
X = 10 * jax.random.normal(jax.random.key(0), (64, 2))
KEY = jax.random.key(1)


def test_bars_of_the_published_iteration():
  """Euler of 100 steps on the ring, window 50: at most 30 sweeps, within .02 at tol 1e-2; data_std 1 needs fewer.

  tol = 0 is the sequential sample to rounding, and no sample depends on its batch.
  """
  denoise, solver = RING.denoiser(EDM), solvers.euler(EDM, grids.karras(EDM, 100))
  want = sample(denoise, solver, X)
  published = picard(denoise, solver, X, window=50, tol=1e-2, data_std=np.inf)
  assert published.sweeps.max() <= 30 and jnp.abs(published.x - want).max() <= 0.02
  ours = picard(denoise, solver, X, window=50, tol=1e-2)
  assert ours.sweeps.max() < published.sweeps.max() and jnp.abs(ours.x - want).max() <= 0.02
  assert (ours.nfe >= 100).all() and (ours.nfe <= 50 * ours.sweeps).all()
  exact = picard(denoise, solver, X, window=50, tol=0.0)
  np.testing.assert_allclose(exact.x, want, atol=2e-5)
  alone = picard(denoise, solver, X[:3], window=50, tol=1e-2)
  np.testing.assert_allclose(alone.x, ours.x[:3], atol=1e-5)
  np.testing.assert_array_equal(alone.sweeps, ours.sweeps[:3])


def test_gaussian_data_take_two_sweeps():
  """The prediction of N(0, c^2) moves as the pair is moved: one sweep finds the end, a second one that it stands."""
  process = schedules.vp_linear()
  denoise = gaussian([0.0, 0.0], 0.25 * np.eye(2)).denoiser(process)
  x = X / 10
  solver = solvers.dpmpp_2m(process, grids.uniform(process, 12))
  got = picard(denoise, solver, x, window=20, tol=1e-4, data_std=0.5)
  np.testing.assert_allclose(got.x, sample(denoise, solver, x), atol=1e-5)
  np.testing.assert_array_equal(got.sweeps, 2)
  assert (got.nfe > 12).all() and (got.nfe < 2 * 12).all()  # the first point stands at once
  one = picard(denoise, solver, x, window=1)
  np.testing.assert_array_equal(one.sweeps, 12)  # a window of one row is `sample`
  np.testing.assert_allclose(one.x, sample(denoise, solver, x), atol=1e-6)


def test_noise_and_rows_without_evaluation():
  """Pre-drawn noise is that of `sample`, row by row; idle rows count no evaluation."""
  solver = solvers.churn(solvers.heun, EDM, grids.karras(EDM, 6), s_churn=2.0)
  got = picard(RING.denoiser(EDM), solver, X[:8], KEY, window=4, tol=0.0)
  np.testing.assert_allclose(got.x, sample(RING.denoiser(EDM), solver, X[:8], KEY), atol=2e-5)
  assert (got.nfe >= solver.nfe).all() and (got.sweeps <= len(solver.rows.t)).all()
  assert solver.nfe < len(solver.rows.t)


class Remembering(Transform):
  def __call__(self, x, t, cond=None, memory=None):
    return self.denoise(x, t)._replace(aux={'memory': x})


def test_bad_input():
  denoise, solver = RING.denoiser(EDM), solvers.ddim(EDM, grids.karras(EDM, 4))
  for options, message in (
    (dict(window=0), 'window: got 0; allowed: a whole number'),
    (dict(tol=-1.0), 'tol, data_std: got -1.0'),
    (dict(data_std=0.0), 'tol, data_std: got .*, 0.0'),
  ):
    with pytest.raises(ValueError, match=message):
      picard(denoise, solver, X, **options)
  with pytest.raises(ValueError, match='key: got None'):
    picard(denoise, solvers.ddpm(EDM, grids.karras(EDM, 4)), X)
  remembers = Remembering(RING.denoiser(EDM))
  with pytest.raises(ValueError, match='denoise: got one that remembers'):
    picard(remembers, solver, X)
