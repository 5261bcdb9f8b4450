"""Energy guidance to a property of the sample, such as the size of a molecule."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Data
from diffjax.guidance.tilt import Tilted, tilt
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Denoise

__all__ = ['property_energy']


def property_energy(denoise: Denoise, predict: Callable, scale: Any = 1.0) -> Tilted:
  """Lowers the energy scale |g(x_t, t) - c|^2 of a predicted property g, c being what cond['source'] asks for.

  Adds -scale grad_x |g(x, t) - c|^2 to the score. Where g turns not and moves not with a point cloud, and the denoiser
  turns with it, so does what this returns; and the gradient does not move the cloud's mean. Several properties are
  one g of several numbers.   arXiv:2209.15408 eq. 7

  Costs one evaluation more, of g with its VJP.

  Args:
    denoise: what is asked for predictions.
    predict: g, (x, t, cond) -> (B, k), t (B,) in the process's own time; as a pytree its parameters may change without
      another compilation.
    scale: a number, one a sample (B,), or a function of t as a pytree.
  """
  return tilt(denoise, Partial(closeness, as_scale(predict)), scale, price=1)


def closeness(predict: Callable, x: Data, t: Array, cond: Any) -> Array:
  """-|g(x, t) - c|^2, (B,)."""
  out = predict(x, t, cond)
  return -jnp.sum((out - cond['source'].reshape(out.shape)) ** 2, -1)
