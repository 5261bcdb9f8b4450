"""The Gaussian of a data set."""

import numpy as np

from diffjax.contracts import Data
from diffjax.errors import InputError
from diffjax.statistics.types import Gaussian

__all__ = ['gaussian']


def gaussian(x0: Data, rank: int | None = None) -> Gaussian:
  """Mean and the leading `rank` principal axes of the examples x0 (n, ...), float64; all axes with variance by default.

  The eigenvectors of the covariance (d, d), or of the Gram matrix (n, n) where there are fewer examples than elements;
  variances are divided by n.

  Raises:
    InputError: fewer than two examples, or a rank below 1 or above the number of elements.
  """
  x = np.asarray(x0, np.float64).reshape(len(x0), -1)
  n, d = x.shape
  if n < 2:
    raise InputError(f'x0: got {n} examples; allowed: at least two')
  if rank is not None and not 1 <= rank <= d:
    raise InputError(f'rank: got {rank}; allowed: a whole number from 1 to the {d} elements of an example')
  mean = x.mean(0)
  x = x - mean
  var, vectors = np.linalg.eigh((x.T @ x if d <= n else x @ x.T) / n)
  var, vectors = var[::-1], vectors[:, ::-1]
  kept = int(np.sum(var > 1e-12 * max(var[0], np.finfo(float).tiny)))  # less is rounding
  kept = kept if rank is None else min(kept, rank)
  var, vectors = var[:kept], vectors[:, :kept]
  basis = vectors if d <= n else x.T @ vectors / np.sqrt(n * var)
  return Gaussian(mean.reshape(np.shape(x0)[1:]), np.ascontiguousarray(basis), np.ascontiguousarray(var))
