"""Networks that see beside x what x is paired with: cond is {'label': labels or None, 'source': y}, y of x's shape."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Params
from diffjax.errors import InputError
from diffjax.methods.parts import Parts

__all__ = ['SOURCE', 'Beside', 'beside', 'told']

SOURCE = 'source'


class Beside(NamedTuple):
  """A network that sees x and its source along the last axis, and returns what x is like."""

  net: Any

  @property
  def module(self) -> Any:
    """That of the network."""
    return self.net.module

  def __call__(self, params: Params, x: Array, t: Array, cond: Cond = None, key: Any = None) -> Array:
    """What the network returns, in the shape of x."""
    both = jnp.concatenate([x, cond[SOURCE].astype(x.dtype)], -1)
    return self.net(params, both, t, cond.get('label'), key).reshape(x.shape)

  def init(self, key: Array, x: Array, t: Array, cond: Cond = None) -> Params:
    """Weights for these shapes; cond are labels here."""
    return self.net.init(key, jnp.concatenate([x, x], -1), t, cond)


def beside(parts: Parts) -> Beside:
  """The network of the config as one that sees a source.

  Raises:
    InputError: it returns another number of numbers than x has.
  """
  x, t, cond = parts.inputs(1)
  twice = jnp.concatenate([x, x], -1)
  out = jax.eval_shape(lambda key: parts.net(parts.net.init(key, twice, t, cond), twice, t, cond), jax.random.key(0))
  if out.size != x.size:
    raise InputError(f'net.out_channels: got outputs of shape {out.shape[1:]} from x and its source; allowed: as many '
                     f'numbers as x has, {parts.shape}')  # fmt: skip
  return Beside(parts.net)


def told(loss: Callable) -> Callable:
  """The loss with what a batch is paired with as part of its condition."""

  def paired(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> Any:
    cond = {'label': batch.get('cond'), SOURCE: batch[SOURCE]}
    return loss(roles, {'x': batch['x'], 'cond': cond}, key)

  return paired
