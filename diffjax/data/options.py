"""What the options of made sets may be, refused in one clear line."""

from collections.abc import Sequence
from typing import Any

from diffjax.errors import InputError

__all__ = ['among', 'check_made', 'number', 'whole']

SPLITS = ('train', 'test')


def check_made(split: str, n: int, seed: int) -> None:
  """Refuse a split other than train and test, no examples, or a negative seed."""
  among('split', split, SPLITS)
  whole('data.n', n, 1)
  whole('data.seed', seed, 0)


def whole(field: str, value: Any, low: int, high: int | None = None) -> int:
  """A whole number of at least `low` and, where it is given, at most `high`."""
  right = isinstance(value, int) and not isinstance(value, bool)
  if not right or value < low or (high is not None and value > high):
    ends = f'of at least {low}' if high is None else f'{low} to {high}'
    raise InputError(f'{field}: got {value!r}; allowed: whole numbers {ends}')
  return int(value)


def number(field: str, value: Any, low: float, high: float = float('inf')) -> float:
  """A number from `low` up to, and without, `high`."""
  if not isinstance(value, int | float) or not low <= value < high:
    ends = f'of at least {low:g}' + ('' if high == float('inf') else f' and below {high:g}')
    raise InputError(f'{field}: got {value!r}; allowed: numbers {ends}')
  return float(value)


def among(field: str, value: Any, allowed: Sequence[Any]) -> Any:
  """One of a few."""
  if value not in allowed:
    raise InputError(f'{field}: got {value!r}; allowed: {", ".join(map(repr, allowed))}')
  return value
