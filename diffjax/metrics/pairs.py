"""Distances between all pairs of two sets of features: in blocks on the host, of many pairs in tiles on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics import tiles
from diffjax.metrics.nearest import Nearest

__all__ = ['far', 'kth_nearest', 'mean_within', 'squared_distances', 'total_distance']

BLOCK = 2**22  # pairs of a block, 32 MB; two sets of more are left to the device


def far(x: np.ndarray, y: np.ndarray) -> bool:
  """Whether two sets have so many pairs that they go to the device."""
  return len(x) * len(y) > BLOCK


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
  """Row blocks of |x_i - y_j|^2 for x (n,d) and y (m,d): yields (rows of x, block (b,m)), float64.

  By differences, not by |x|^2 + |y|^2 - 2 x.y: equal points are at distance 0 and equal pairs compare equal wherever
  they stand, on which the strict and non-strict comparisons of the neighbour metrics rely.
  """
  from scipy.spatial.distance import cdist

  step = max(1, BLOCK // len(y))
  for start in range(0, len(x), step):
    part = slice(start, min(start + step, len(x)))
    yield part, cdist(x[part], y, 'sqeuclidean')


def kth_nearest(x: np.ndarray, y: np.ndarray | None = None, k: int = 1) -> np.ndarray:
  """Squared distance (n,) from each x_i to its k-th nearest point of y (m,d), or of x without x_i when y is None.

  Of many pairs by `Nearest`, to the same values.

  Raises:
    InputError: k is not within 1 .. number of candidates.
  """
  other = x if y is None else y
  candidates = len(x) - 1 if y is None else len(y)
  if not 1 <= k <= candidates:
    raise InputError(f'k = {k} nearest neighbours of {candidates} candidates; allowed is 1..{candidates}')
  if far(x, other):
    search = Nearest(x, k, among=y is None)
    for start in range(0, len(other), search.chunk):
      search.add(other[start : start + search.chunk])
    return search.squared(lambda index: other[index])
  result = np.empty(len(x))
  for part, block in squared_distances(x, other):
    if y is None:
      block[np.arange(len(block)), np.arange(part.start, part.stop)] = np.inf
    result[part] = np.partition(block, k - 1, axis=1)[:, k - 1]
  return result


def total_distance(x: np.ndarray, y: np.ndarray) -> float:
  """The sum of all distances between two sets, sum_ij |x_i - y_j| for x (n,d) and y (m,d)."""
  if far(x, y):
    return tiles.total_distance(x, y)
  return float(sum(np.sqrt(block).sum() for _, block in squared_distances(x, y)))


def mean_within(total: Callable[[np.ndarray], float], x: np.ndarray, labels: np.ndarray | None = None) -> float:
  """The mean of a function over pairs of independent points of one law, unbiased.

  E f(x, x') for independent x and x' of the law behind x (n,d), unbiased, from sums over pairs of distinct points.

  Independent draws (labels None): sum_{i != j} f_ij / n(n-1). When the class counts n_c were fixed in advance, pairs of
  one class are rarer than among independent draws, n_c (n_c - 1) for n_c^2, and are weighted up by n_c / (n_c - 1):
    ( sum_{i != j} f_ij + sum_c sum_{i != j in c} f_ij / (n_c - 1) ) / n^2

  Args:
    total: sum over ordered pairs of distinct points of a set (n',d).
    x: the points (n, d).
    labels: (n,) classes whose counts are fixed; a class of one point has no pair and adds none.
  """
  n = len(x)
  if labels is None:
    return float(total(x) / (n * (n - 1)))
  groups = [x[labels == c] for c in np.unique(labels)]
  return float((total(x) + sum(total(g) / (len(g) - 1) for g in groups if len(g) > 1)) / n**2)
