"""Checks shared by the factories, and the dtype names they take."""

import jax.numpy as jnp

from diffjax.errors import InputError

from .layers import REMAT

FLOATS = ('float32', 'bfloat16', 'float16', 'float64')


def check(field: str, value, ok, allowed: str):
  """InputError naming field, value and what is allowed, unless ok."""
  if not ok:
    raise InputError(f'{field}: {value!r} is not allowed; allowed: {allowed}')


def is_count(value) -> bool:
  """Whether a value is a positive whole number (True is none)."""
  return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_remat(value):
  """InputError unless `value` is a policy of `layers.rematted`."""
  check(
    'remat', value, value is None or value is False or value in REMAT, f'None, False, {", ".join(map(repr, REMAT))}'
  )


def activation_dtype(dtype) -> jnp.dtype:
  """The dtype of activations from its name or itself; equal networks hold equal dtypes whichever was given."""
  name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
  check('dtype', name, name in FLOATS, ', '.join(FLOATS))
  return jnp.dtype(name)
