"""Unbiased kernel distances (KID, Gaussian-kernel MMD) and their permutation test."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics.features import rows
from diffjax.metrics.pairs import mean_within
from diffjax.metrics.resample import shuffled

__all__ = ['cubic', 'gaussian', 'kid', 'median_distance', 'mmd', 'permutation_p']

Labels = tuple[np.ndarray, np.ndarray]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
BLOCK = 2048  # rows of a Gram block
LIMIT = 2000  # rows a set may bring to a full Gram matrix


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """The cubic polynomial kernel of KID.

  (x.y / d + 1)^3, (n,m): the kernel of KID.   arXiv:1801.01401
  """
  inner = x @ y.T / x.shape[1] + 1
  return inner * inner * inner


def gaussian(bandwidth: float) -> Kernel:
  """The Gaussian kernel, exp(-|x - y|^2 / (2 bandwidth^2)).

  Raises:
    InputError: bandwidth is not positive.
  """
  if not bandwidth > 0:
    raise InputError(f'bandwidth = {bandwidth}; allowed is any positive number')

  def kernel(x, y):
    from scipy.spatial.distance import cdist

    return np.exp(cdist(x, y, 'sqeuclidean') / (-2 * bandwidth**2))

  return kernel


def median_distance(reference: np.ndarray, seed: int = 0) -> float:
  """Median distance of pairs of reference features (n,d), of 2000 random rows at most: the usual bandwidth.

  From the reference only, so that the kernel does not change with the generator.
  """
  from scipy.spatial.distance import pdist

  return float(np.median(pdist(_at_most(np.random.default_rng(seed), rows(reference)))))


def mmd(reference: np.ndarray, samples: np.ndarray, kernel: Kernel, labels: Labels | None = None) -> float:
  """Squared maximum mean discrepancy of features (n,d) and (m,d) as a U-statistic, Gram blocks streamed.

  sum_{i != j} k(x_i, x_j) / n(n-1) + sum_{i != j} k(y_i, y_j) / m(m-1) - 2 mean k(x_i, y_j)
  Unbiased for independent draws, hence negative half of the time under the null. For class counts fixed in advance give
  the labels (of reference, of samples): pairs are then weighted as in `pairs.mean_within`. Without that the null mean
  is below 0 (-.03 for KID on 360 digits, the size of what is to be measured).   Gretton et al. 2012
  """
  x, y = rows(reference, 'reference'), rows(samples, 'samples')
  within = sum(
    mean_within(lambda z: _sum(kernel, z, z, True), z, groups)
    for z, groups in zip((x, y), labels or (None, None), strict=True)
  )
  return float(within - 2 * _sum(kernel, x, y, False) / (len(x) * len(y)))


def kid(reference: np.ndarray, samples: np.ndarray, labels: Labels | None = None) -> float:
  """Kernel (Inception) distance: `mmd` with the cubic kernel.

  Between more points than d^2 the sums over pairs are inner products of the sets' moments up to the third.

  arXiv:1801.01401
  """
  return mmd(reference, samples, cubic, labels)


def permutation_p(
  reference: np.ndarray,
  samples: np.ndarray,
  kernel: Kernel = cubic,
  labels: Labels | None = None,
  draws: int = 200,
  seed: int = 0,
) -> float:
  """The permutation test of `mmd`.

  p-value of `mmd` under 'both sets are of one law': (1 + #{permuted >= observed}) / (1 + draws).

  Permutes the pooled Gram matrix (plain weights); with labels (of reference, of samples) within classes only, which
  is exact when the class counts were fixed in advance. Sets beyond 2000 rows are cut to random 2000 first (the
  matrix is held whole).
  """
  rng = np.random.default_rng(seed)
  x, y = rows(reference, 'reference'), rows(samples, 'samples')
  strata = labels or (np.zeros(len(x), int), np.zeros(len(y), int))
  pick = [_at_most(rng, np.arange(len(part))) for part in (x, y)]
  pooled = np.concatenate([x[pick[0]], y[pick[1]]])
  groups = np.concatenate([np.asarray(strata[0])[pick[0]], np.asarray(strata[1])[pick[1]]])
  gram = kernel(pooled, pooled)
  np.fill_diagonal(gram, 0)
  n, m = len(pick[0]), len(pick[1])
  first = np.arange(n + m) < n
  sides = np.stack([first, *(first[shuffled(rng, groups)] for _ in range(draws))]).astype(np.float64)
  rest = 1 - sides
  towards = sides @ gram
  xx, xy = (towards * sides).sum(1), (towards * rest).sum(1)
  yy = gram.sum() - xx - 2 * xy
  values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
  # permutations that change nothing must count as ties, whatever the rounding of the sums
  return float((1 + np.sum(values[1:] >= values[0] - 1e-12 * np.abs(gram).max())) / (1 + draws))


def _sum(kernel, x, y, without_diagonal):
  if kernel is cubic and min(len(x), len(y)) > x.shape[1] ** 2:
    diagonal = ((np.sum(x * y, 1) / x.shape[1] + 1) ** 3).sum() if without_diagonal else 0
    return float(_moments(x) @ _moments(y) - diagonal)
  total = 0.0
  for start in range(0, len(x), BLOCK):
    block = kernel(x[start : start + BLOCK], y)
    total += float(block.sum() - (np.trace(block[:, start:]) if without_diagonal else 0))
  return total


def _moments(x):
  """Of features (n,d) the sums whose inner product with those of another set is the sum of `cubic` over all pairs.

  (x.y / d + 1)^3 = 1 + 3 x.y / d + 3 (x.y / d)^2 + (x.y / d)^3, and (x.y)^p is the product of two p-fold tensors.
  """
  x = x / x.shape[1] ** 0.5
  third = 0.0
  for start in range(0, len(x), BLOCK):
    part = x[start : start + BLOCK]
    third = third + np.einsum('ij,ik->ijk', part, part).reshape(len(part), -1).T @ part
  return np.concatenate([[len(x)], 3**0.5 * x.sum(0), 3**0.5 * np.ravel(x.T @ x), np.ravel(third)])


def _at_most(rng, x):
  return x if len(x) <= LIMIT else x[rng.choice(len(x), LIMIT, replace=False)]
