"""What networks read besides plain points and images: conditions of several parts, and clips, by frames as channels."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

__all__ = ['Told', 'folded', 'told', 'unfolded']


class Told(NamedTuple):
  """The parts of a condition; None for those that are not there."""

  label: Any
  augment: Any = None
  source: Any = None
  mask: Any = None


def told(cond: Any) -> Told:
  """A condition as its parts: labels alone, or a dict of some of 'label', 'augment', 'source' and 'mask'."""
  return Told(*map(cond.get, Told._fields)) if isinstance(cond, dict) else Told(cond)


def folded(x: Array) -> Array:
  """Clips (B, F, ..., C) with their frames as channels, (B, ..., F C)."""
  return jnp.moveaxis(x, 1, -2).reshape(x.shape[0], *x.shape[2:-1], -1)


def unfolded(x: Array, frames: int) -> Array:
  """What `folded` was given: (B, ..., F C) -> (B, F, ..., C)."""
  return jnp.moveaxis(x.reshape(*x.shape[:-1], frames, -1), -2, 1)
