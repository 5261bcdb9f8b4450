"""Gradient-free classifier guidance: away from the class that a classifier confuses the sample with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.mix import mixed
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.prediction import Denoise, Pred

__all__ = ['gradient_free']


def unsure(p: Array) -> Array:
  """1 - p: as much as the classifier doubts the label."""
  return 1 - p


def gradient_free(
  denoise: Denoise, logits: Callable, scale: Any, temperature: Any = 1.0, rule: Callable = unsure
) -> 'GradientFree':
  """Gradient-free classifier guidance: pushes away from the most confusable class, the more the less sure it is.

      q = softmax(logits(x0_hat) / temperature),   r = argmax over c != y of q_c
      d_y + (scale - 1) rule(q_y) (d_y - d_r)                                arXiv:2411.15393

  After the abstract: how the paper's scale falls is not verified, hence `rule`. Scale 1 is the conditional prediction.
  Costs 2 evaluations of `denoise`, one after the other, as the second asks for what the first shows, and one of the
  classifier.

  Args:
    denoise: what is asked for predictions.
    logits: (x, t) -> (B, C), of clean data, t = 0; as a pytree its parameters may change without another compilation.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    temperature: likewise; above 1 where x0_hat is blurred, at much noise.
    rule: q_y (B,) -> what multiplies scale - 1.

  Raises:
    InputError: when called, there are no labels.
  """
  return GradientFree(denoise, as_scale(logits), as_scale(scale), as_scale(temperature), as_scale(rule))


class GradientFree(Transform):
  """Made by `gradient_free`; what the denoiser remembers is a pair, of the label and of the class beside it."""

  logits: Any
  scale: Any
  temperature: Any
  rule: Any

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    labels = cond.get('label') if isinstance(cond, dict) else cond
    if labels is None:
      raise InputError('cond: got no labels; allowed: a label to guide towards, one a sample')
    first, second = (None, None) if memory is None else memory
    pred = self.denoise(x, t, cond, first)
    out = self.logits(pred.x0, jnp.zeros(len(labels))) / jnp.reshape(
      value_at(self.temperature, jnp.asarray(t)), (-1, 1)
    )
    q = jax.lax.stop_gradient(jax.nn.softmax(out, -1))
    own = jnp.arange(q.shape[1]) == labels[:, None]
    rival = jnp.argmax(jnp.where(own, -1, q), 1).astype(labels.dtype)
    away = self.rule(jnp.sum(jnp.where(own, q, 0), 1))
    other = self.denoise(x, t, cond | {'label': rival} if isinstance(cond, dict) else rival, second)
    mix = mixed(self.process, t, pred, (other,), (lambda t: (1 - value_at(self.scale, t)) * away,))
    after = tuple(p.aux.get('memory') if isinstance(p.aux, dict) else None for p in (pred, other))
    return mix._replace(aux=mix.aux | {'memory': after}) if jax.tree.leaves(after) else mix

  def cost(self, t: float) -> int:
    """Two evaluations and the classifier's."""
    return 2 * cost(self.denoise, t) + 1
