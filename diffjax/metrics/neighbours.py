"""Precision, recall, density, coverage and the near-copy check: what nearest neighbours say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from diffjax.metrics import tiles
from diffjax.metrics.features import rows
from diffjax.metrics.pairs import far, kth_nearest, squared_distances

__all__ = ['Copies', 'Neighbours', 'compare', 'coverage_null', 'near_copies', 'near_copies_held_out', 'neighbours']


class Neighbours(NamedTuple):
  """The figures of `neighbours`, each a share or a density."""

  precision: float
  recall: float
  density: float
  coverage: float


class Copies(NamedTuple):
  """How near samples lie to training points (distance a) and to held-out ones (distance b)."""

  share: float  # with a < b / 2
  nearer: float  # with a < b
  ratio: float  # median of a / b


def neighbours(reference: np.ndarray, samples: np.ndarray, k: int = 5) -> Neighbours:
  """Precision, recall, density and coverage of features (n,d) and (m,d), one pass over all pairs.

  With r_i the distance of reference point i to its k-th neighbour among the reference (itself excluded), s_j the same
  for samples, and D_ij = |r_i - g_j|:
    precision  share of samples j with D_ij <= r_i for some i
    recall     share of reference points i with D_ij <= s_j for some j
    density    #{(i, j): D_ij < r_i} / (k m)
    coverage   share of reference points i with D_ij < r_i for some j
  `<=` and `<` as in the sources; they differ only where points coincide. For two sets of one law density has mean 1 and
  coverage `coverage_null`; precision and recall are equal but not 1 (.88 for n = m = 360, d = 16), so read them beside
  their floor, at n = m.   arXiv:1904.06991, arXiv:2002.09797

  Raises:
    InputError: k is not below n and m.
  """
  reference, samples = rows(reference, 'reference'), rows(samples, 'samples')
  large = far(reference, samples)
  if large:  # products round by the size of the points
    centre = reference.mean(0)
    reference, samples = reference - centre, samples - centre
  real, fake = kth_nearest(reference, k=k), kth_nearest(samples, k=k)
  inside, reached, covered, within = (tiles.counts if large else _counts)(reference, samples, real, fake)
  pairs = within.sum() / (k * len(samples))
  return Neighbours(float(inside.mean()), float(reached.mean()), float(pairs), float(covered.mean()))


def _counts(reference, samples, real, fake):
  """`tiles.counts` of fewer pairs, by differences on the host."""
  inside = np.zeros(len(samples), bool)
  reached, within = np.empty(len(reference), bool), np.empty(len(reference), int)
  for part, block in squared_distances(reference, samples):
    radius = real[part, None]
    inside |= (block <= radius).any(0)
    reached[part] = (block <= fake).any(1)
    within[part] = (block < radius).sum(1)
  return inside, reached, within > 0, within


def coverage_null(n: int, m: int, k: int = 5) -> float:
  """Expected coverage of two sets of one law: 1 - prod_{j=1..k} (n - j) / (n + m - j).

  arXiv:2002.09797
  """
  j = np.arange(1, k + 1)
  return float(1 - np.prod((n - j) / (n + m - j)))


def near_copies(samples: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> Copies:
  """How much nearer samples (m,d) lie to the training images than to images never trained on.

  For each sample, a is the distance to the nearest training image and b to the nearest held-out image; the sample is a
  near copy when a < b / 2. Data may hold near duplicates, and the training set is larger, so the share is not 0 for new
  images: compare it with `near_copies_held_out`, the same statistic of images that cannot be copies. (A quantile of the
  held-out images' own a would fix their share in advance and could not be wrong.) Copies have share 1.
  """
  samples, train, held_out = rows(samples, 'samples', 1), rows(train, 'train', 1), rows(held_out, 'held_out', 1)
  return compare(kth_nearest(samples, train), kth_nearest(samples, held_out))


def near_copies_held_out(train: np.ndarray, held_out: np.ndarray) -> Copies:
  """`near_copies` with each held-out image in the sample's place, its own image left out of the held-out set.

  Its references are n_train and n_held - 1 images against a sample's n_train and n_held: for samples of the data's own
  law the two shares agree up to that one image.
  """
  train, held_out = rows(train, 'train', 1), rows(held_out, 'held_out')
  return compare(kth_nearest(held_out, train), kth_nearest(held_out))


def compare(a: np.ndarray, b: np.ndarray) -> Copies:
  """Of squared distances to the nearest training and held-out image (m,); one found in both (0, 0) tells nothing."""
  ratio = np.sqrt(np.divide(a, b, out=np.where(a > 0, np.inf, 1.0), where=b > 0))
  return Copies(float((a < b / 4).mean()), float((a < b).mean()), float(np.median(ratio)))
