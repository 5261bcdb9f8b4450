"""The precision of sums and losses: float32 at least, whatever a network computes in."""

from typing import Any

import jax.numpy as jnp
from jax import Array

__all__ = ['wide', 'widened']


def wide(x: Any) -> Any:
  """The dtype of x, or float32 where that is narrower."""
  return jnp.promote_types(jnp.result_type(x), jnp.float32)


def widened(x: Any) -> Array:
  """X in the dtype `wide(x)`."""
  return jnp.asarray(x, wide(x))
