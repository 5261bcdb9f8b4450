"""Molecules (n, atoms, 3 + types): distances between atoms, which no rotation, reflection or order changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffjax.metrics.result import Metric
from diffjax.metrics.sets import Given, compared, share

__all__ = ['bonds', 'clouds', 'distances']


def clouds(given: Given) -> dict[str, Metric]:
  """Distances between atoms against those of held-out molecules, and the share of molecules that can be.

  pair_distance_w1 is the W_1 of the distances of all pairs of atoms, of all molecules together; bond_length_w1 that of
  the distances of each light atom (type 0) to the nearest other one, both in the unit of the positions; where samples
  have none, a distance of 0 is put. `valid` is what the law says of each, where it says.
  """
  from scipy.stats import wasserstein_distance

  def statistic(reference, samples, labels):
    def between(found: Callable) -> float:
      x, y = (np.concatenate([found(one) for one in many] or [[]]) for many in (reference, samples))
      return wasserstein_distance(x if len(x) else [0.0], y if len(y) else [0.0])

    return np.array([between(distances), between(bonds)])

  result = compared(given, ('pair_distance_w1', 'bond_length_w1'), statistic, 'distances', np.asarray)
  if hasattr(given.law, 'valid'):
    result['valid'] = share(given.law.valid(given.samples), given.law.valid(given.held['x']), 'law')
  return result


def distances(molecule: np.ndarray) -> np.ndarray:
  """Of all pairs of atoms of one molecule (atoms, 3 + types); rows whose types are all below 1/2 are no atoms."""
  apart, _ = _atoms(molecule)
  return apart[np.triu_indices(len(apart), 1)]


def bonds(molecule: np.ndarray) -> np.ndarray:
  """From each atom of type 0 to the nearest of another type."""
  apart, types = _atoms(molecule)
  between = apart[types == 0][:, types > 0]
  return between.min(1) if between.size else np.zeros(0)


def _atoms(molecule: Any) -> tuple[np.ndarray, np.ndarray]:
  """Distances (k, k) between the atoms there are, and their types (k,)."""
  one = np.asarray(molecule, np.float64)
  one = one[one[:, 3:].max(1) > 0.5]
  return np.linalg.norm(one[:, None, :3] - one[None, :, :3], axis=-1), one[:, 3:].argmax(1)
