"""Rescaled classifier-free guidance: what is extrapolated is brought back towards the size of what it began as."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.dtypes import wide
from diffjax.guidance.cfg import Free
from diffjax.guidance.mix import mixed
from diffjax.guidance.transform import as_scale, null_for, value_at
from diffjax.kinds import Kind, as_kind
from diffjax.prediction import Denoise, Pred, predict, target
from diffjax.process import over_time

__all__ = ['cfg_rescale']


def cfg_rescale(
  denoise: Denoise, scale: Any, amount: Any = 0.7, kind: str | Kind = 'v', null: Cond = None
) -> 'Rescaled':
  """CFG rescale: guides, and then divides out part of what guidance did to the standard deviation of the output.

      k = u + scale (c - u),   k (1 + amount (std(c) / std(k) - 1))     std over all elements of a sample

  arXiv:2305.08891 sec. 3.4

  It acts on a network's output, and differs from kind to kind of it. amount 0 is `cfg`, and scale 1 the conditional
  prediction. The mean of the elements is taken off by the standard deviation alone, as published. Costs 2 evaluations.

  Args:
    denoise: what is asked for predictions.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    amount: phi, published .7; likewise.
    kind: of the output that is rescaled; published v.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: no `null` is given or known, or the network never saw it in training, a kind that is not there; or
      (when called) there is no condition.
  """
  return Rescaled(denoise, as_scale(scale), null_for(denoise, null), as_scale(amount), as_kind(kind))


class Rescaled(Free):
  """Made by `cfg_rescale`."""

  amount: Any
  kind: Kind

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    c, u, aux = self.pair(x, t, cond, memory)
    guided = mixed(self.process, t, c, (u,), (lambda t: 1 - value_at(self.scale, t),))
    own, out = (target(self.process, self.kind, pred.x0, pred.eps, t) for pred in (c, guided))

    def change(t: Array, own: Array, out: Array) -> Array:
      ratio = _std(own) / jnp.maximum(_std(out), jnp.finfo(out.dtype).tiny)
      return (value_at(self.amount, jnp.asarray(t)) * (ratio - 1)).reshape(-1, *(1,) * (out.ndim - 1)) * out

    moved = moved_by(self, guided, t, over_time(change, t, own, out), self.kind)
    return moved._replace(aux=aux | {'conditional': c})


def moved_by(denoise: Denoise, pred: Pred, t: Time, change: Data, kind: str | Kind) -> Pred:
  """The prediction with `change` added to its output of this kind; a change of 0 leaves it as it is, bit for bit."""
  more = predict(denoise.process, kind, jax.tree.map(jnp.zeros_like, change), t, change)

  def add(out: Array, more: Array) -> Array:
    return (out + more).astype(out.dtype)

  return pred._replace(x0=jax.tree.map(add, pred.x0, more.x0), eps=jax.tree.map(add, pred.eps, more.eps))


def _std(out: Array) -> Array:
  return jnp.std(out.reshape(len(out), -1).astype(wide(out)), axis=1)
