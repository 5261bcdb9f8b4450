"""Distances of two batches, one number an example, (B,): named by `config.method.distance`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.dtypes import widened
from diffjax.errors import InputError

__all__ = ['huber', 'l1', 'l2', 'pseudo_huber', 'robust']

Distance = Callable[[Array, Array], Array]


def l2() -> Distance:
  """The mean square over the dimensions of an example."""
  return lambda a, b: jnp.mean(_apart(a, b) ** 2, -1)


def l1() -> Distance:
  """The mean absolute value over the dimensions of an example."""
  return lambda a, b: jnp.mean(jnp.abs(_apart(a, b)), -1)


def pseudo_huber(c: float | None = None) -> Distance:
  """The pseudo-Huber distance sqrt(|a - b|^2 + c^2) - c, |.| over all dimensions of an example.

  c is .00054 sqrt(d) unless given, which regresses to a median: on noisy targets of few dimensions that misplaces mass,
  and c = .1 sqrt(d) does not.   arXiv:2310.14189 eq. 9
  """
  if c is not None and not c > 0:
    raise InputError(f'c: got {c}; allowed: a positive number, or None for .00054 sqrt(d)')

  def distance(a: Array, b: Array) -> Array:
    gap = _apart(a, b)
    scale = 0.00054 * gap.shape[-1] ** 0.5 if c is None else c
    square = jnp.sum(gap**2, -1)
    return square / (jnp.sqrt(square + scale**2) + scale)  # the difference of roots without cancellation

  return distance


def huber(c: float = 0.001) -> Distance:
  """The mean over the dimensions of sqrt(gap^2 + c^2) - c: a Huber distance of each dimension by itself.

  arXiv:2310.04378 sec. 4, the distance of its code
  """
  if not c > 0:
    raise InputError(f'c: got {c}; allowed: a positive number')

  def distance(a: Array, b: Array) -> Array:
    square = _apart(a, b) ** 2
    return jnp.mean(square / (jnp.sqrt(square + c**2) + c), -1)

  return distance


def robust(p: float = 1.0, c: float = 0.01) -> Distance:
  """The square |a - b|^2 divided by its own value to a power, |a - b|^2 / sg(|a - b|^2 + c)^p; p = 0 is the square.

  arXiv:2505.13447 eq. 22
  """
  if not (0 <= p <= 1 and c > 0):
    raise InputError(f'p, c: got {p}, {c}; allowed: 0 <= p <= 1 and a positive c')

  def distance(a: Array, b: Array) -> Array:
    square = jnp.sum(_apart(a, b) ** 2, -1)
    return square / jax.lax.stop_gradient(square + c) ** p

  return distance


def named(spec: Any) -> Distance:
  """The distance that a name, or a dict of a name and its options, stands for.

  Raises:
    InputError: another name, or an option that it does not have.
  """
  options = dict(name=spec) if isinstance(spec, str) else dict(spec)
  name = options.pop('name', None)
  if name not in __all__:
    raise InputError(f'distance: got {name!r}; allowed: {", ".join(__all__)}')
  try:
    return globals()[name](**options)
  except TypeError:
    raise InputError(f'distance: got {name} with {", ".join(options)}; allowed: the options of {name}') from None


def _apart(a: Array, b: Array) -> Array:
  return (widened(a) - widened(b)).reshape(len(a), -1)
