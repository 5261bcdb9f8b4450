"""Classifier guidance: follow the gradient of log p(cond | x_t)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand, over_time

__all__ = ['classifier_guidance']


def classifier_guidance(denoise: Denoise, log_prob: Callable, scale: Any = 1.0) -> 'Classified':
  """Classifier guidance: adds `scale` times the gradient of log p(cond | x_t) to the prediction.

  eps - scale sigma G and x0 + scale (sigma^2 / alpha) G, G = grad_x log p(cond | x_t).   arXiv:2105.05233 Alg. 2

  On an unconditional denoiser, with the exact classifier, this is classifier-free guidance of the same scale; on a
  conditional one, of scale + 1. Where alpha = 0, x_t says nothing of the class and the prediction stays as it is.
  Costs one more evaluation: the classifier's forward and VJP.

  Args:
    denoise: what is asked for predictions.
    log_prob: (x, t, cond) -> (B,), x (B, ...), t (B,) in the process's own time, cond as handed to the denoiser.
      As a pytree (`jax.tree_util.Partial(fn, params)`) its parameters may change without another compilation.
    scale: a number, one a sample (B,), or a function of t as a pytree.

  Raises:
    InputError: when called, there is no condition.
  """
  return Classified(denoise, as_scale(log_prob), as_scale(scale))


class Classified(Transform):
  """Made by `classifier_guidance`."""

  log_prob: Any
  scale: Any

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if cond is None:
      raise InputError('cond: got None; allowed: a condition to guide towards, one a sample')
    pred = self.denoise(x, t, cond, memory)
    size = jax.tree.leaves(x)[0].shape[0]
    times = jax.tree.map(lambda t: jnp.broadcast_to(jnp.asarray(t), (size,)), t)
    slope = jax.grad(lambda x: jnp.sum(self.log_prob(x, times, cond)))(x)

    def push(rule: Callable, t: Array, out: Array, slope: Array) -> Array:
      alpha, sigma = self.process.schedule(jnp.asarray(t))
      gain = value_at(self.scale, t) * jnp.where(alpha > 0, rule(alpha, sigma), 0)
      return (out + expand(gain, out) * slope).astype(out.dtype)

    x0 = over_time(partial(push, lambda alpha, sigma: sigma**2 / alpha), t, pred.x0, slope)
    eps = over_time(partial(push, lambda alpha, sigma: -sigma), t, pred.eps, slope)
    return pred._replace(x0=x0, eps=eps)

  def cost(self, t: float) -> int:
    return cost(self.denoise, t) + 1
