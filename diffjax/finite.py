"""Numbers that are not finite: counted, named, and passed on to no file."""

from typing import Any

import numpy as np

__all__ = ['check', 'lost']


def lost(values: Any) -> np.ndarray:
  """Which rows of values (n, ...) hold NaN or infinity, (n,) bool."""
  values = np.asarray(values)
  return ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))


def check(field: str, bad: np.ndarray, rows: str = 'samples', names: Any = None) -> None:
  """Refuses rows that are lost; does nothing where none is.

  Args:
    field: what holds them, for the message.
    bad: (n,) bool, see `lost`.
    rows: what they are, for the message.
    names: (n,) what each is called; its place by default.

  Raises:
    FloatingPointError: how many are lost and the first of them; a command then ends with status 1.
  """
  if bad.any():
    first = int(np.argmax(bad))
    first = first if names is None else names[first]
    raise FloatingPointError(f'{field}: got {int(bad.sum())} of {len(bad)} {rows} with NaN or infinity, the first is '
                             f'{first}; allowed: finite numbers, nothing is written of these')  # fmt: skip
