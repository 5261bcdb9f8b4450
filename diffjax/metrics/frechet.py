"""Frechet distance between the Gaussians of two feature sets, and its small-sample bias."""

from __future__ import annotations

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics.features import rows

__all__ = ['frechet', 'frechet_bias', 'frechet_from_moments', 'moments']


def moments(x: np.ndarray, shrinkage: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
  """Mean (d,) and covariance (d,d) of features (n,d), float64, divided by n - 1.

  With shrinkage s the covariance is (1 - s) S + s tr(S)/d I: the only honest way to use n <= d points.

  Raises:
    InputError: n <= d without shrinkage (the covariance would be singular, the distance meaningless), or shrinkage
      outside [0, 1].
  """
  x = rows(x)
  n, d = x.shape
  if not 0 <= shrinkage <= 1:
    raise InputError(f'shrinkage = {shrinkage}; allowed is 0 to 1')
  if n <= d and not shrinkage:
    raise InputError(f'n = {n} points for a covariance in d = {d}; n > d is needed (or shrinkage > 0)')
  mean = x.mean(0)
  covariance = (x - mean).T @ (x - mean) / (n - 1)
  return mean, (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / d * np.eye(d)


def frechet_from_moments(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
  """The squared Frechet distance of two Gaussians given by their moments.

  |m1 - m2|^2 + tr(S1 + S2) - 2 tr (S1^{1/2} S2 S1^{1/2})^{1/2}.

  By symmetric eigendecompositions (no complex parts; eigenvalues clipped at 0), float64.   arXiv:1706.08500
  """
  mean1, cov1, mean2, cov2 = (np.asarray(a, np.float64) for a in (mean1, cov1, mean2, cov2))
  values, vectors = np.linalg.eigh(cov1)
  root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
  inner = root @ cov2 @ root
  cross = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
  return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * cross)


def frechet(reference: np.ndarray, samples: np.ndarray, shrinkage: float = 0.0) -> float:
  """Frechet distance of features (n,d) and (m,d): `frechet_from_moments` of their `moments`.

  Biased upward at finite n and m by `frechet_bias`; compare at equal sizes, with the floor beside it.

  Raises:
    InputError: see `moments`; or the feature dimensions differ.
  """
  first, second = moments(reference, shrinkage), moments(samples, shrinkage)
  if first[0].shape != second[0].shape:
    raise InputError(f'features of dimension {first[0].size} and {second[0].size}; both sets need the same')
  return frechet_from_moments(*first, *second)


def frechet_bias(covariance: np.ndarray, n: int, m: int) -> float:
  """Expected distance of n and m independent draws of one Gaussian law with this covariance (d,d), to order 1/n + 1/m.

  (1/n + 1/m) [ sum_i l_i + 1/2 sum_ij l_i l_j / (l_i + l_j) + 1/4 sum_i l_i ] in its eigenvalues l; for the identity
  (1/n + 1/m) (d + d (d + 1) / 4). The first sum is the mean's; the others are
  the second-order term 1/2 sum_ij E dS_ij^2 / (l_i + l_j) of the covariance part, E dS_ij^2 = l_i l_j (1 + [i = j]).
  """
  values = np.clip(np.linalg.eigvalsh(np.asarray(covariance, np.float64)), 0, None)
  total = np.maximum(values[:, None] + values, np.finfo(np.float64).tiny)
  pairs = values[:, None] * values / total
  return float((1 / n + 1 / m) * (1.25 * values.sum() + pairs.sum() / 2))
