"""Transforms: Denoiser -> Denoiser. What they share, how they compose and what they cost."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from diffjax import labels
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.prediction import Denoise, check_null, network_of, null_of
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['chain', 'cost']


class Transform(PyTree):
  """The base of transforms: pytrees whose first field is the wrapped denoiser, `denoise`; their numbers are leaves."""

  denoise: Denoise

  @property
  def process(self) -> Process:
    return self.denoise.process


def chain(*transforms: Callable[[Any], Any]) -> Callable[[Any], Any]:
  """The transform that applies these in order, the first one nearest to the network.

  chain(partial(cfg, scale=3.), dynamic_threshold)(denoise) = dynamic_threshold(cfg(denoise, scale=3.))
  """

  def apply(denoise: Any) -> Any:
    for transform in transforms:
      denoise = transform(denoise)
    return denoise

  return apply


def cost(denoise: Any, t: float) -> int:
  """Forwards, and pairs of a forward and its VJP, in one evaluation of `denoise` at time t; a network alone costs 1.

  A gradient through the denoiser itself is one more of its evaluations, beside the forward it needs. The cost of a run
  is the sum over its evaluations; a transform with a price of its own has a method `cost(t)`.
  """
  if hasattr(denoise, 'cost'):
    return denoise.cost(t)
  return cost(denoise.denoise, t) if isinstance(denoise, Transform) else 1


def null_for(denoise: Any, null: Cond = None) -> Any:
  """The condition that means none, as arrays: `null`, or the network's own.

  Raises:
    InputError: none is given or known, the network never saw it in training, or it is a label that is not there.
  """
  own = null_of(denoise)
  chosen = own if null is None else null
  if chosen is None:
    raise InputError('null: got None and the network names none; allowed: the condition that means none')
  if null is None or getattr(network_of(denoise), 'null', None) is None or _equal(null, own):
    check_null(denoise)
  labels.check_for(denoise, chosen, 'null')
  return jax.tree.map(lambda n: jnp.asarray(n, jnp.result_type(n)), chosen)


def _equal(null: Cond, own: Any) -> bool:
  """Whether a null that was given is the network's own label; one that is traced cannot be told."""
  given, own = labels.known(null), labels.known(own)
  return given is not None and own is not None and bool((given == own).all())


def as_scale(scale: Any) -> Any:
  """A number as an array of one dtype, so that another value is not another program; a function of t as a pytree.

  A function that is no pytree becomes a static one: it recompiles when it is built anew, its numbers cannot change.
  """
  if not callable(scale):
    return jnp.asarray(scale, float)
  return Partial(scale) if jax.tree_util.all_leaves([scale]) else scale


def value_at(scale: Any, t: Array) -> Array:
  """The scale at time t, () or (B,)."""
  return jnp.asarray(scale(t) if callable(scale) else scale)
