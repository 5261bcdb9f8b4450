"""The Gaussian of a data set: the covariance again, from either matrix, and its leading part."""

import numpy as np
import pytest

from diffjax import statistics


@pytest.mark.parametrize('n', [200, 7])  # more examples than elements, and fewer
def test_all_axes_give_the_covariance(n):
  x = np.random.default_rng(0).random((n, 3, 4, 1)).astype(np.float32)
  found = statistics.gaussian(x)
  flat = x.reshape(n, -1).astype(np.float64)
  np.testing.assert_allclose(found.mean, flat.mean(0).reshape(3, 4, 1), rtol=1e-14)
  np.testing.assert_allclose(found.basis @ np.diag(found.var) @ found.basis.T, np.cov(flat.T, bias=True), atol=1e-14)
  np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(len(found.var)), atol=1e-12)
  assert len(found.var) == min(12, n - 1) and (np.diff(found.var) < 0).all()


def test_rank_keeps_the_leading_axes():
  x = np.random.default_rng(0).standard_normal((50, 6)) * np.arange(1, 7)
  whole, part = statistics.gaussian(x), statistics.gaussian(x, rank=2)
  np.testing.assert_array_equal(part.var, whole.var[:2])
  np.testing.assert_array_equal(part.basis, whole.basis[:, :2])


def test_refusals():
  x = np.zeros((5, 3))
  for rank in (0, 4):
    with pytest.raises(ValueError, match=f'rank: got {rank}; allowed: a whole number from 1 to the 3'):
      statistics.gaussian(x, rank)
  with pytest.raises(ValueError, match='x0: got 1 examples'):
    statistics.gaussian(x[:1])
