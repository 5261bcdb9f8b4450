"""Pairs: each sample, made from a source, against the datum that goes with it."""

from __future__ import annotations

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics.resample import NORMAL, matched
from diffjax.metrics.result import Metric
from diffjax.metrics.sets import Given, flat

__all__ = ['partners', 'psnr']

CEILING = 100.0  # decibels of an exact copy


def partners(given: Given) -> dict[str, Metric]:
  """Root mean square error and PSNR of samples against their partners; nothing where the data are not paired.

  rmse is over all numbers of all samples, its interval by the spread of the samples' mean square errors; psnr is the
  mean over samples, for data in [-1, 1]. Their reference is no floor but what knows nothing of the source: training
  data of the same label in the samples' place (`_unpaired`). `rmse_source` and `psnr_source` are those of the source
  handed back, where it has the shape of x; `rmse_forecast` that of the law's best linear forecast, where it has one.
  A draw of the exact conditional law has sqrt(2) times the rmse of that law's mean.
  """
  if 'source' not in given.held:
    return {}
  x, y, source = flat(given.held['x']), flat(given.samples), np.asarray(given.held['source'])
  squares = np.mean((y - x) ** 2, 1)
  others = _unpaired(given, x)
  rmse, error = np.sqrt(squares.mean()), squares.std() / len(squares) ** 0.5
  ends = tuple(float(np.sqrt(max(squares.mean() + s * NORMAL * error, 0))) for s in (-1, 1))
  quality = psnr(squares)
  ranges = NORMAL * quality.std() / len(quality) ** 0.5
  plain = lambda value, floor=None, ends=None: Metric(float(value), floor, ends, len(x), len(y), 'pairs')  # noqa: E731
  result = {
    'rmse': plain(rmse, None if others is None else float(np.sqrt(others.mean())), ends),
    'psnr': plain(quality.mean(), None if others is None else float(psnr(others).mean()),
                  (float(quality.mean() - ranges), float(quality.mean() + ranges))),
  }  # fmt: skip
  if source.shape == np.shape(given.held['x']):
    back = np.mean((flat(source) - x) ** 2, 1)
    result |= {'rmse_source': plain(np.sqrt(back.mean())), 'psnr_source': plain(psnr(back).mean())}
  if hasattr(given.law, 'forecast'):
    result['rmse_forecast'] = plain(np.sqrt(np.mean((flat(given.law.forecast(source)[0]) - x) ** 2)))
  return result


def psnr(squares: np.ndarray) -> np.ndarray:
  """10 log10(4 / mse) decibels of mean square errors of data in [-1, 1]; at most 100, that of a copy."""
  return 10 * np.log10(4 / np.maximum(squares, 4 * 10 ** (-CEILING / 10)))


def _unpaired(given: Given, x: np.ndarray) -> np.ndarray | None:
  """Mean square errors (subsets, n) of training data of the same labels; None where there are too few."""
  pool, labels = flat(given.pool['x']), given.labels
  there, asked = (np.zeros(len(pool), int), np.zeros(len(x), int)) if labels is None else (given.pool['cond'], labels)
  rng = np.random.default_rng(given.seed)
  try:
    stand_ins = [matched(rng, there, asked) for _ in range(given.subsets)]
  except InputError:
    return None
  return np.array([np.mean((pool[index] - x) ** 2, 1) for index in stand_ins]) if stand_ins else None
