"""SADA's step mode: what it leaves alone, how many evaluations it skips, and what that costs."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracle import gm_a, prior_points

from diffjax import schedules, solvers
from diffjax.solvers import grids, sada, sample

PROCESS = schedules.vp_linear()
X = prior_points(PROCESS, 256).astype(np.float32)
TABLE = solvers.dpmpp_2m(PROCESS, grids.uniform(PROCESS, 50, to_zero=False))
DENOISE = gm_a().denoiser(PROCESS)


def test_evaluations_and_fidelity():
  """GM-A, 50 steps of 2M: at most 28 evaluations, within .15; an empty range is the base bit for bit.

  Each sample decides by itself, whatever its batch; one decision for the batch is the same for all.
  """
  base = np.asarray(sample(DENOISE, TABLE, X))
  errors = {}
  for extrapolation in ('adams', 'published'):
    got = sada(DENOISE, TABLE, X, extrapolation=extrapolation)
    errors[extrapolation] = np.sqrt(np.mean(np.sum((got.x - base) ** 2, 1)))
    assert errors[extrapolation] <= 0.15
    assert extrapolation == 'adams' or got.nfe.max() <= 28
  assert errors['adams'] <= 1.05 * errors['published']
  np.testing.assert_array_equal(sada(DENOISE, TABLE, X, between=(1.0, 1.0)).x, base)
  alone = sada(DENOISE, TABLE, X[:3])
  whole = sada(DENOISE, TABLE, X)
  np.testing.assert_allclose(alone.x, whole.x[:3], atol=1e-5)
  np.testing.assert_array_equal(alone.nfe, whole.nfe[:3])
  assert len(np.unique(sada(DENOISE, TABLE, X, batch_coupled=True).nfe)) == 1


def test_at_most_so_many_in_a_row():
  """Without the fixed pattern, of every most + 1 evaluations in the range one happens."""
  for most in (0, 1, 4):
    nfe = np.asarray(sada(DENOISE, TABLE, X[:8], between=(0.2, 0.94), late=1.0, most=most).nfe)
    assert (nfe >= 50 - 37 * most / (most + 1) - 1).all() and (most or (nfe == 50).all())


def test_refusals():
  ts = grids.uniform(PROCESS, 50)
  for table, options, message in (
    (solvers.ddpm(PROCESS, ts), {}, 'table: got one that draws noise'),
    (TABLE, dict(between=(-0.1, 0.5)), 'between, most, every: got'),
    (TABLE, dict(extrapolation='linear'), "extrapolation: got 'linear'; allowed: adams, published"),
    (solvers.ddim(PROCESS, grids.uniform(PROCESS, 10)), {}, 'late: got 0.48 of 10 rows'),
  ):
    with pytest.raises(ValueError, match=message):
      sada(DENOISE, table, jnp.asarray(X), **options)
