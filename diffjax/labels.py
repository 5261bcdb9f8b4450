"""Labels of classes, refused where they can be read: a table counts -1 from its end and answers NaN beyond it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from diffjax.errors import InputError

__all__ = ['check', 'check_for', 'known']


def known(cond: Any) -> np.ndarray | None:
  """The labels of a condition, (B,) or (), where they can be read: not traced, and on devices of this process.

  A condition is labels or {'label': labels, ..}; what holds no whole numbers has none.
  """
  cond = cond.get('label') if isinstance(cond, dict) else cond
  if isinstance(cond, Tracer) or not getattr(cond, 'is_fully_addressable', True):
    return None
  if isinstance(cond, int | list) or (hasattr(cond, 'dtype') and jnp.issubdtype(cond.dtype, jnp.integer)):
    return np.asarray(cond)
  return None


def check(cond: Any, classes: int, field: str = 'cond') -> None:
  """Nothing where the labels are those of a network of so many classes, 0 .. classes, or cannot be read.

  Raises:
    InputError: another label; `classes` itself is the null label.
  """
  values = known(cond)
  if values is None or not classes:
    return
  wrong = values[(values < 0) | (values > classes)]
  if wrong.size:
    raise InputError(f'{field}: got label {wrong.flat[0]}; allowed: 0 to {classes - 1}, or {classes}, which means none')


def check_for(denoise: Any, cond: Any, field: str = 'cond') -> None:
  """The check of the network in a stack of transforms, before a program is traced, which cannot read them."""
  while hasattr(denoise, 'denoise'):
    denoise = denoise.denoise
  if hasattr(denoise, 'check_cond'):
    denoise.check_cond(cond, field)
