"""Steered diffusion: the predicted x0 is made to agree with an inverse task, exactly or along a network's gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.tilt import Tilted, slope_of
from diffjax.guidance.transform import Transform, as_scale, value_at
from diffjax.prediction import Denoise, Pred, complete
from diffjax.process import expand, over_time

__all__ = ['replaced', 'steered']


def replaced(denoise: Denoise, forward: Callable, inverse: Callable, observed: Data) -> 'Replaced':
  """Steered diffusion on a linear task: the part of the predicted x0 that the task sees is what was observed.

  x0 - A^+ (A x0 - y), and the noise that goes with it.   arXiv:2310.00224

  A mask, a luminance or a mean of blocks with its repetition are such tasks. No gradient is taken.

  Args:
    denoise: what is asked for predictions.
    forward: A, x0 (B, ...) -> what is seen.
    inverse: A^+, with A A^+ A = A; what is seen -> like x0.
    observed: y, what is seen of each sample, the batch first, or of all with a batch of 1.
  """
  return Replaced(denoise, as_scale(forward), as_scale(inverse), jax.tree.map(jnp.asarray, observed))


class Replaced(Transform):
  """Made by `replaced`."""

  forward: Any
  inverse: Any
  observed: Data

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    error = jax.tree.map(lambda seen, y: seen - y, self.forward(pred.x0), self.observed)
    x0 = jax.tree.map(lambda x0, back: (x0 - back).astype(x0.dtype), pred.x0, self.inverse(error))
    return complete(self.process, x, t, x0, pred.aux)


def steered(
  denoise: Denoise,
  log_weight: Callable,
  scale: Any,
  *,
  interval: tuple[float, float] | None = None,
  price: int = 1,
) -> 'Steered':
  """Steered diffusion with a network's loss: a step of the predicted x0 along its gradient in x_t.

  x0 + scale sigma grad_x r(x0_hat(x)), and the noise that goes with it; r = -loss.   arXiv:2310.00224

  That is `tilt` at x0 with a scale that falls with the noise, scale alpha / sigma. Losses add up. Repeats of each
  step with new noise between are the solver's: `solvers.recurrent`.

  Args:
    denoise: what is asked for predictions.
    log_weight: r, (x0, t, cond) -> (B,), as of `tilt`.
    scale: a number, one a sample (B,), or a function of t; published 10 for a perceptual loss of images in [-1, 1],
      1500 to 3000 for an embedding's, 30000 for a segmentation's.
    interval: (lo, hi): steer where lo < t <= hi alone.
    price: evaluations that r and its gradient count as in `cost`.

  Raises:
    InputError: lo >= hi.
  """
  if interval is not None and (len(interval) != 2 or not interval[0] < interval[1]):
    raise InputError(f'interval: got {interval}; allowed: (lo, hi) in t with lo < hi')
  ends = jnp.asarray((-jnp.inf, jnp.inf) if interval is None else interval, float)
  return Steered(denoise, as_scale(log_weight), as_scale(scale), ends, at='x0', through=True, price=price)


class Steered(Tilted):
  """Made by `steered`."""

  interval: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred, _, slope = slope_of(self.denoise, self.log_weight, x, t, cond, memory, at='x0')

    def move(t: Array, x0: Array, slope: Array) -> Array:
      t = jnp.asarray(t)
      gain = value_at(self.scale, t) * self.process.schedule(t)[1]
      gain = jnp.where((self.interval[0] < t) & (t <= self.interval[1]), gain, 0)
      return (x0 + expand(gain, x0) * slope).astype(x0.dtype)

    return complete(self.process, x, t, over_time(move, t, pred.x0, slope), pred.aux)
