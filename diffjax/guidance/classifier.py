"""Classifier guidance: follow the gradient of log p(cond | x_t)."""

from collections.abc import Callable
from typing import Any

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.tilt import Tilted
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Denoise, Pred

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
  return Classified(denoise, as_scale(log_prob), as_scale(scale), at='x', through=False, price=1)


class Classified(Tilted):
  """Made by `classifier_guidance`."""

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if cond is None:
      raise InputError('cond: got None; allowed: a condition to guide towards, one a sample')
    return super().__call__(x, t, cond, memory)
