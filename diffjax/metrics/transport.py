"""Sliced Wasserstein and energy distance."""

from __future__ import annotations

import numpy as np

from diffjax.metrics.features import rows
from diffjax.metrics.pairs import mean_within, total_distance

__all__ = ['energy_distance', 'sliced_wasserstein']

BLOCK = 128  # directions projected at once
GRID = (np.arange(1000) + 0.5) / 1000  # quantiles for sets of unequal sizes


def sliced_wasserstein(reference: np.ndarray, samples: np.ndarray, directions: int = 512, seed: int = 0) -> float:
  """The sliced Wasserstein distance of two feature sets.

  SW_2 of features (n,d) and (m,d): root of the mean over random unit directions of the projections' W_2^2.

  Sorted projections when n = m, 1000 common quantiles otherwise. The directions depend on (d, directions, seed) only.
  Two samples of one law are not at 0 (.12 for n = m = 360 whitened, d = 16): read it beside its floor.
  Bonneel et al. 2015
  """
  x, y = rows(reference, 'reference'), rows(samples, 'samples')
  axes = np.random.default_rng(seed).standard_normal((directions, x.shape[1]))
  axes /= np.linalg.norm(axes, axis=1, keepdims=True)
  total = 0.0
  for start in range(0, directions, BLOCK):
    part = axes[start : start + BLOCK].T
    u, v = np.sort(x @ part, axis=0), np.sort(y @ part, axis=0)
    if len(x) != len(y):
      u, v = np.quantile(u, GRID, axis=0), np.quantile(v, GRID, axis=0)
    total += ((u - v) ** 2).mean(0).sum()
  return float(np.sqrt(total / directions))


def energy_distance(
  reference: np.ndarray, samples: np.ndarray, labels: tuple[np.ndarray, np.ndarray] | None = None
) -> float:
  """The energy distance of two feature sets, unbiased.

  2 E|x - y| - E|x - x'| - E|y - y'| of features (n,d) and (m,d), pairs of distinct points: unbiased.

  For class counts fixed in advance give the labels (of reference, of samples), see `pairs.mean_within`.
  Gneiting & Raftery 2007
  """
  x, y = rows(reference, 'reference'), rows(samples, 'samples')
  within = sum(
    mean_within(lambda z: total_distance(z, z), z, groups)
    for z, groups in zip((x, y), labels or (None, None), strict=True)
  )
  return float(2 * total_distance(x, y) / (len(x) * len(y)) - within)
