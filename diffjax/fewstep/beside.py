"""What x is paired with, its 'source', as what a network is told: cond is {'label': labels or None, 'source': y}."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jax import Array

from diffjax.methods.parts import Parts

__all__ = ['SOURCE', 'beside', 'told']

SOURCE = 'source'


def beside(parts: Parts) -> Parts:
  """The parts with a network that is told a source of the shape of x.

  Raises:
    InputError: a network that reads none.
  """
  others = {**parts.others, SOURCE: parts.shape}
  own = replace(parts, loss_options={**parts.loss_options, 'given': (SOURCE,)}, others=others)
  return own if own.given else parts


def told(loss: Callable) -> Callable:
  """The loss with what a batch is paired with as part of its condition."""

  def paired(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> Any:
    cond = {'label': batch.get('cond'), SOURCE: batch[SOURCE]}
    return loss(roles, {'x': batch['x'], 'cond': cond}, key)

  return paired
