"""Feature functions: what every set metric looks through, with the name a report quotes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from diffjax.errors import InputError
from diffjax.fingerprint import digest

__all__ = ['Features', 'pca_features', 'rows']

AT_ONCE = 2048  # images
WHOLE = 512  # rows or columns up to which a matrix is decomposed whole


@dataclasses.dataclass(frozen=True)
class Features:
  """A map from images (n, ...) to features (n, d), with the id under which its numbers may be compared."""

  id: str
  apply: Callable[[np.ndarray], np.ndarray]

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Some images at a time: what a map holds between images and features stays small."""
    return np.concatenate([self.apply(images[i : i + AT_ONCE]) for i in range(0, max(len(images), 1), AT_ONCE)])


def rows(x: np.ndarray, name: str = 'features', least: int = 2) -> np.ndarray:
  """Flattens x to float64 rows (n, d).

  Raises:
    InputError: not two-dimensional, fewer than `least` rows, or not finite.
  """
  x = np.asarray(x, np.float64)
  if x.ndim != 2:
    raise InputError(f'{name} has shape {x.shape}; allowed is (n, d): flatten images first')
  if len(x) < least:
    raise InputError(f'{name} has {len(x)} rows; at least {least} are needed')
  if not np.isfinite(x).all():
    bad = int((~np.isfinite(x)).any(1).sum())
    raise InputError(f'{name} has NaN or infinity in {bad} of {len(x)} rows; only finite values are allowed')
  return x


def pca_features(train: np.ndarray, d: int = 16) -> Features:
  """Whitened leading principal components of flattened pixels, z = (x - mean) V / sqrt(eigenvalue).

  The fallback where no network is at hand: fitted on `train` (n, ...), maps (m, ...) to (m, d).

  Raises:
    InputError: d is above the number of directions in which `train` varies.
  """
  flat = rows(np.asarray(train).reshape(len(train), -1), 'train')
  mean = flat.mean(0)
  singular, axes = _leading(flat - mean, d)
  rank = int((singular > singular[0] * 1e-7).sum())
  if not 1 <= d <= rank:
    raise InputError(
      f'd = {d} principal components; the training images vary in {rank} directions, allowed is 1..{rank}'
    )
  # the sign of an eigenvector is free: its largest entry is made positive, so that two machines agree
  signs = np.sign(axes[np.arange(d), np.abs(axes[:d]).argmax(1)])
  basis = (signs[:, None] * axes[:d]).T * ((len(flat) - 1) ** 0.5 / singular[:d])
  return Features(
    f'pixels-pca{d}-{digest(dict(mean=np.round(mean, 6)))}',
    lambda images: (np.asarray(images, np.float64).reshape(len(images), -1) - mean) @ basis,
  )


def _leading(x: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray]:
  """The greatest singular values of x (n, p), falling, at least d where there are, and their right vectors, as rows.

  Of a large x by Lanczos on its smaller square, to float64's precision: a whole decomposition takes 100 times as long.
  """
  if min(x.shape) <= WHOLE:
    return np.linalg.svd(x, full_matrices=False)[1:]
  from scipy.sparse.linalg import eigsh

  wide = x.shape[0] < x.shape[1]
  start = np.random.default_rng(0).standard_normal(min(x.shape))
  values, vectors = eigsh(x @ x.T if wide else x.T @ x, d, v0=start, ncv=4 * d)
  singular = np.sqrt(np.maximum(values[::-1], 0))
  vectors = vectors[:, ::-1].T
  return singular, vectors @ x / np.maximum(singular, np.finfo(np.float64).tiny)[:, None] if wide else vectors
