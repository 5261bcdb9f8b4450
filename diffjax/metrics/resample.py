"""Subsets of labelled sets: spread, matched, halved, permuted. What floors, intervals and p-values are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffjax.errors import InputError

__all__ = ['half_samples', 'interval', 'matched', 'shuffled', 'spread', 'wilson']

NORMAL = 1.959964  # 97.5% quantile


def matched(rng: np.random.Generator, pool: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Indices (m,) into `pool` (labels of the candidates), without repeats, with pool[index] == labels (m,).

  Sets that differ in class counts differ by that alone: unmatched, a floor is several times too high and means nothing.

  Raises:
    InputError: a class has fewer candidates than `labels` asks for.
  """
  pool, labels = np.asarray(pool), np.asarray(labels)
  index = np.empty(len(labels), int)
  for c in np.unique(labels):
    found, wanted = np.flatnonzero(pool == c), labels == c
    if len(found) < wanted.sum():
      raise InputError(f'class {c} is wanted {wanted.sum()} times; the pool has {len(found)}: use fewer samples')
    index[wanted] = rng.choice(found, wanted.sum(), replace=False)
  return index


def spread(n: int, size: int, labels: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
  """Indices (n,), rising, of a subset spread evenly over a set of `size` in any order, with its classes in proportion.

  A class of n_c gets n n_c / size places, rounded so that they add up to n (largest remainders; of equal ones, random
  ones). Within a class one example is drawn at random from each of so many equal stretches: neither an order of the
  file nor a period in it is favoured. A function of the arguments alone; n >= size is the whole set in its order.
  """
  if n >= size:
    return np.arange(size)
  rng = np.random.default_rng(seed)
  _, group, counts = np.unique(np.zeros(size) if labels is None else labels, return_inverse=True, return_counts=True)
  taken, rest = np.divmod(n * counts, size)
  taken[np.lexsort((rng.random(len(counts)), -rest))[: n - taken.sum()]] += 1
  chosen = []
  for c, k in enumerate(taken):
    edges = np.arange(k + 1) * counts[c] // max(k, 1)
    chosen.append(np.flatnonzero(group == c)[rng.integers(edges[:-1], edges[1:])])
  return np.sort(np.concatenate(chosen))


def shuffled(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
  """A random permutation (n,) that keeps every label in place: labels[index] == labels."""
  slots = np.argsort(labels, kind='stable')
  index = np.empty(len(labels), int)
  index[slots] = np.lexsort((rng.random(len(labels)), labels))
  return index


def half_samples(
  statistic: Callable[..., np.ndarray],
  reference: np.ndarray,
  samples: np.ndarray,
  labels: tuple[np.ndarray, np.ndarray] | None = None,
  *,
  draws: int = 100,
  seed: int = 0,
  progress: Callable[[Any], Any] = iter,
) -> np.ndarray:
  """Standard deviation of statistic(reference, samples, labels) over redraws of both sets, by random halves.

  Each draw keeps a random half of each set, within classes when labels (of reference, of samples) are given, without
  replacement. For a statistic linear in the points a half deviates from the whole with variance
  s^2 (1 / (n/2) - 1/n) = s^2 / n, that of the whole itself: no rescaling. For a U-statistic under the null, of variance
  c / n^2, halves deviate with c (4 - 1) / n^2: too wide by sqrt(3), never too narrow.
  The usual bootstrap is wrong here: points drawn twice add k(x, x) to a U-statistic and zero distances to neighbours
  (KID at n = 360: estimate -.001, bootstrap mean +.022).   Politis & Romano 1994

  Args:
    statistic: (n',d), (m',d), their labels (or None) -> a number or an array of them.
    reference: (n,d).
    samples: (m,d).
    labels: of both sets, to keep their classes; None without.
    draws: the number of redraws.
    seed: of the redraws.
    progress: wraps the range of draws.

  Returns:
    The standard deviation, in the statistic's shape.
  """
  rng = np.random.default_rng(seed)
  strata = labels or (np.zeros(len(reference), int), np.zeros(len(samples), int))

  def half(groups):
    # every other point in random order within classes: half of each class, an odd one rounded at random
    return np.lexsort((rng.random(len(groups)), groups))[rng.integers(2) :: 2]

  def draw():
    i, j = half(strata[0]), half(strata[1])
    return statistic(reference[i], samples[j], labels and (strata[0][i], strata[1][j]))

  return np.std([draw() for _ in progress(range(draws))], axis=0, ddof=1)


def interval(value: float, sd: float) -> tuple[float, float]:
  """The 95% normal interval value -+ 1.96 sd."""
  return float(value - NORMAL * sd), float(value + NORMAL * sd)


def wilson(share: float, n: int) -> tuple[float, float]:
  """The 95% Wilson interval of a share of n independent trials."""
  z = NORMAL**2 / n
  centre, half = (share + z / 2) / (1 + z), NORMAL / (1 + z) * np.sqrt(share * (1 - share) / n + z / (4 * n))
  return float(centre - half), float(centre + half)
