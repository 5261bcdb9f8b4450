"""Perturbed-attention guidance: away from what the same network says when some of its attention is switched off."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.mix import mixed
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.nets import Apply
from diffjax.nets.hooks import identity
from diffjax.prediction import Denoise, Denoiser, Pred, network_of

__all__ = ['perturbed_attention']


def perturbed_attention(denoise: Denoise, scale: Any, layers: str = '*') -> 'Operated':
  """Perturbed-attention guidance: extrapolates from the network whose tokens see themselves alone to the network.

      d + (scale - 1) (d - p),   p of the same network with softmax(q k^T) v replaced by v in the chosen layers

  arXiv:2403.17377

  On `cfg` d in the brackets is the conditional prediction, as published, and costs no evaluation more: u + w (c - u) +
  (scale - 1) (c - p). It needs no condition. Scale 1 is `denoise` alone; the paper's scale is this less 1. Costs one
  evaluation of the network beside those of `denoise`.

  Args:
    denoise: what is asked for predictions, its network one of `diffjax.nets` with attention.
    scale: a number, one a sample (B,), or a function of t as a pytree; published 2 for pixels, 3 to 4 for latents.
    layers: which attentions, a pattern of their names (`Apply.hook_names`), such as 'middle*'; all by default.

  Raises:
    InputError: a network that has no attention to take over, or (when called) none of these names.
  """
  return Operated(denoise, hooked(denoise, layers, identity), Partial(_away, as_scale(scale)))


def hooked(denoise: Denoise, layers: str, hook: Callable) -> Denoiser:
  """The network inside a stack of transforms with a hook in the attentions of these names.

  Raises:
    InputError: it is none of `diffjax.nets`.
  """
  network = network_of(denoise)
  net = getattr(network, 'net', None)
  if not isinstance(net, Apply):
    raise InputError(f'network: got {type(net or network).__name__}, which has no attention; allowed: a network of '
                     'diffjax.nets with attention, such as dit, unet or uvit')  # fmt: skip
  return network.replace(net=dataclasses.replace(net, hooks=((layers, hook), *net.hooks)))


class Operated(Transform):
  """Guidance by a network on which something was done: d + weight (p - d)."""

  perturbed: Any
  weight: Any

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    other = self.other(x, t, cond)
    own = pred.aux.get('conditional') if isinstance(pred.aux, dict) else None
    if own is None:
      return mixed(self.process, t, pred, (other,), (self.weight,))
    return mixed(self.process, t, pred, (other, own), (self.weight, Partial(_minus, self.weight)))

  def other(self, x: Data, t: Time, cond: Cond) -> Pred:
    """What the network on which something was done predicts."""
    return self.perturbed(x, t, cond)

  def cost(self, t: float) -> int:
    """One evaluation more."""
    return cost(self.denoise, t) + 1


def _away(scale: Any, t: Array) -> Array:
  return 1 - value_at(scale, t)


def _minus(weight: Any, t: Array) -> Array:
  return -value_at(weight, t)
