"""Fingerprints: which arrays a figure is of, and which process a table, statistics or a solver was made for."""

import hashlib
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at
from diffjax.process import Process

__all__ = ['digest', 'matching', 'stamp']

PLACES = (0.02, 0.2, 0.5, 0.8, 0.98)  # of t_max


def digest(arrays: dict[str, np.ndarray]) -> str:
  """First 8 hex digits of the SHA-256 of named arrays (names, shapes, types and bytes): the version of a feature."""
  total = hashlib.sha256()
  for name in sorted(arrays):
    value = np.ascontiguousarray(arrays[name])
    total.update(f'{name}{value.shape}{value.dtype.str}'.encode())
    total.update(value.tobytes())
  return total.hexdigest()[:8]


def stamp(process: Process) -> np.ndarray:
  """What tells one process from another: (t, alpha, sigma) at five times, (5, 3) float64."""
  ts = float(process.t_max) * np.array(PLACES)
  return np.stack([ts, *at(process, ts)[:2]], 1)


def matching(process: Process, made_for: Any, what: str, command: str) -> None:
  """Nothing, if `made_for` is the stamp of this process.

  Raises:
    InputError: it is another's; `what` names the thing that was made, `command` says how to make it for this one.
  """
  mine, other = stamp(process), np.asarray(made_for, np.float64)
  if mine.shape != other.shape or not np.allclose(mine, other, rtol=1e-4, atol=1e-7):
    t, *pair = mine[len(PLACES) // 2]
    raise InputError(f'{what}: made for another process; this one has (alpha, sigma) = ({pair[0]:.4g}, {pair[1]:.4g}) '
                     f'at t = {t:.4g}; allowed: made for this one, by {command}')  # fmt: skip
