"""What a family of figures is given, and the figures of two sets with floors and intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics.protocol import FITTED, Progress, Reader, quiet
from diffjax.metrics.resample import NORMAL, half_samples, interval, matched, spread, wilson
from diffjax.metrics.result import Metric

__all__ = ['Given', 'against_held_out', 'compared', 'count', 'flat', 'share']

LEAST = 4  # examples of a set that can be halved


@dataclasses.dataclass(frozen=True)
class Given:
  """What is held against what.

  Attributes:
    samples: (m, ...) or a dict of such modalities; sample i was drawn for held-out example i where m = n.
    held: a batch of held-out examples: 'x' (n, ...), 'cond' (n,) where there are labels, 'source' of pairs.
    train: the training set; 'cond' exactly when `held` has it.
    name: of the data set.
    law: the exact law of x, or None.
    subsets: training subsets of each floor.
    draws: redraws of each interval; 0 leaves them out.
    seed: of subsets and redraws.
    progress: told of what takes long, as in `protocol.measure`.
  """

  samples: Any
  held: Mapping[str, Any]
  train: Reader
  name: str = ''
  law: Any = None
  subsets: int = 20
  draws: int = 100
  seed: int = 0
  progress: Progress = quiet

  @property
  def labels(self) -> np.ndarray | None:
    """(n,), what the samples were asked to be."""
    return self.held.get('cond')

  @cached_property
  def pool(self) -> dict[str, Any]:
    """Training examples spread evenly over the set: all, or as many as floors need."""
    m = count(self.samples)
    most = max(FITTED // max(flat(self.train.take([0])['x']).size, 1), 2 * m)
    return self.train.take(spread(min(most, max(2048, 8 * m)), self.train.size))


def compared(
  given: Given, names: Sequence[str], statistic: Callable[..., np.ndarray], features: str,
  view: Callable[[Any], np.ndarray],
) -> dict[str, Metric]:  # fmt: skip
  """The figures `names` of statistic(reference, samples, labels of both or None) -> (len(names),).

  Through `view` of both sets and of the training examples. Floors are means over random training subsets with the
  samples' own labels in the samples' place, None where the training set has too few; intervals are by `half_samples`,
  None of sets that cannot be halved.
  """
  x, y, pool = view(given.held['x']), view(given.samples), view(given.pool['x'])
  labels = given.labels
  both = None if labels is None else (np.asarray(labels), np.asarray(labels))
  values = statistic(x, y, both)
  rng = np.random.default_rng(given.seed)
  asked, there = np.zeros(len(y), int) if labels is None else labels, np.zeros(len(pool), int)
  there = there if labels is None else given.pool['cond']
  try:
    stand_ins = [matched(rng, there, asked) for _ in range(given.subsets)]
  except InputError:
    stand_ins = []
  known = [statistic(x, pool[index], both) for index in given.progress('floors', stand_ins)]
  floors = np.mean(known, axis=0) if known else None
  sds = None
  if given.draws and min(len(x), len(y)) >= LEAST:
    told = partial(given.progress, 'intervals')
    sds = half_samples(statistic, x, y, both, draws=given.draws, seed=given.seed, progress=told)
  return {
    name: Metric(float(values[i]), None if floors is None else float(floors[i]),
                 None if sds is None else interval(values[i], sds[i]), len(x), len(y), features)
    for i, name in enumerate(names)
  }  # fmt: skip


def against_held_out(values: np.ndarray, known: np.ndarray, features: str) -> Metric:
  """The mean of a number each sample has (m,), its standard error, and the mean of held-out data's own (n,)."""
  mean, error = (float(values.mean()), float(values.std() / len(values) ** 0.5)) if len(values) else (0.0, 0.0)
  ends = (mean - NORMAL * error, mean + NORMAL * error)
  return Metric(mean, float(known.mean()) if len(known) else None, ends, len(known), len(values), features)


def share(hits: np.ndarray, known: np.ndarray, features: str) -> Metric:
  """The share of samples (m,) of which something is true, with Wilson's interval, and that of held-out data (n,)."""
  value = float(hits.mean())
  return Metric(value, float(known.mean()), wilson(value, len(hits)), len(known), len(hits), features)


def count(x: Any) -> int:
  """How many examples an array (n, ...) holds, or a dict of them."""
  return len(next(iter(x.values())) if isinstance(x, Mapping) else x)


def flat(x: Any) -> np.ndarray:
  """Rows (n, d) in float64 of arrays (n, ...), or of a dict of them side by side in the order of their names."""
  parts = [x[name] for name in sorted(x)] if isinstance(x, Mapping) else [x]
  return np.concatenate([np.asarray(part, np.float64).reshape(len(part), -1) for part in parts], 1)
