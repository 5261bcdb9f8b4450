"""Series (n, length, channels): means, autocovariances and spectra, and the moments of an exact law."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffjax.metrics.result import Metric
from diffjax.metrics.sets import Given, compared, flat

__all__ = ['moments', 'temporal']

LAGS = 24


def temporal(given: Given) -> dict[str, Metric]:
  """Samples against held-out series, each relative to the held-out data and 0 for equal sets.

  mean_error: root mean square difference of the means at every step and channel, over the deviation of all values.
  autocovariance_error: the same of A(k) = mean over l and channels of cov(x_l, x_l+k), k = 0..24, over A(0).
  spectrum_error: sum over frequencies of |P_samples - P_held| over that of P_held, P the mean periodogram.
  """

  def statistic(reference, samples, labels):
    known, found = _autocovariance(reference), _autocovariance(samples)
    mean = np.sqrt(np.mean((samples.mean(0) - reference.mean(0)) ** 2)) / max(reference.std(), TINY)
    lagged = np.sqrt(np.mean((found - known) ** 2)) / max(known[0], TINY)
    power, other = (np.mean(np.abs(np.fft.rfft(x, axis=1)) ** 2, axis=(0, 2)) for x in (reference, samples))
    return np.array([mean, lagged, np.abs(other - power).sum() / max(power.sum(), TINY)])

  return compared(given, ('mean_error', 'autocovariance_error', 'spectrum_error'), statistic, 'series', _series)


def moments(given: Given) -> dict[str, Metric]:
  """The samples' means and covariances against the exact ones, label by label; nothing where no law tells them.

  law_mean_error: root mean square of (mean - exact) over the root of the mean exact variance.
  law_covariance_error: |C - exact| / |exact| in Frobenius' norm. Both are means over labels by their share. Held-out
  data do not enter; a floor is that of as many training examples.
  """
  if not hasattr(given.law, 'covariances'):
    return {}

  def statistic(reference, samples, labels):
    groups = np.zeros(len(samples), int) if labels is None else labels[1]
    errors, weights = [], []
    for k, size in zip(*np.unique(groups, return_counts=True), strict=True):
      if size > 1:
        errors.append(_errors(samples[groups == k], given.law.means[k].ravel(), given.law.covariances[k]))
        weights.append(size)
    return np.average(errors, axis=0, weights=weights) if errors else np.full(2, np.nan)

  if given.labels is None and len(given.law.means) > 1:
    return {}
  return compared(given, ('law_mean_error', 'law_covariance_error'), statistic, 'law', flat)


TINY = np.finfo(np.float64).tiny


def _series(x: Any) -> np.ndarray:
  """(n, length, channels) of whatever a step holds."""
  x = np.asarray(x, np.float64)
  return x.reshape(*x.shape[:2], -1)


def _autocovariance(x: np.ndarray) -> np.ndarray:
  """A(k), k = 0.., of series (n, length, channels) about their mean at every step."""
  away = x - x.mean(0)
  length = x.shape[1]
  return np.array([np.mean(away[:, : length - k] * away[:, k:]) for k in range(min(LAGS + 1, length))])


def _errors(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> list[float]:
  off = np.sqrt(np.mean((x.mean(0) - mean) ** 2) / np.diag(covariance).mean())
  found = np.atleast_2d(np.cov(x.T))
  return [float(off), float(np.linalg.norm(found - covariance) / np.linalg.norm(covariance))]
