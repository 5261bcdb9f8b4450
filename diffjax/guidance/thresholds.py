"""Thresholding: keep the predicted x0 in the range of the data; the noise follows, so predictions stay consistent."""

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform
from diffjax.prediction import Denoise, Pred, complete

__all__ = ['threshold', 'dynamic_threshold']


def threshold(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> 'Clipped':
  """Static thresholding: clips the predicted x0 to the range of the data.

  x0 clipped to [low, high], eps = (x - alpha x0) / sigma.   arXiv:2006.11239

  Raises:
    InputError: low >= high.
  """
  if not low < high:
    raise InputError(f'low, high: got {low}, {high}; allowed: low < high')
  return Clipped(denoise, jnp.asarray(low, float), jnp.asarray(high, float))


class Clipped(Transform):
  """Made by `threshold`."""

  low: Array
  high: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    x0 = jax.tree.map(lambda x0: jnp.clip(x0, self.low, self.high).astype(x0.dtype), pred.x0)
    return complete(self.process, x, t, x0, pred.aux)


def dynamic_threshold(denoise: Denoise, quantile: float = 0.995, floor: float = 1.0) -> 'DynamicallyClipped':
  """Dynamic thresholding: clips the predicted x0 at a quantile of its own size and scales it back to the data's range.

  x0 clipped to [-s, s] and scaled by floor / s, s = max(floor, the sample's quantile of |x0|).   arXiv:2205.11487

  `floor` is the half-width of the data's range. A sample within it stays as it is; eps = (x - alpha x0) / sigma.

  Raises:
    InputError: the quantile is outside [0, 1] or floor is not positive.
  """
  if not 0 <= quantile <= 1:
    raise InputError(f'quantile: got {quantile}; allowed: a number in [0, 1]')
  if not floor > 0:
    raise InputError(f'floor: got {floor}; allowed: a positive number')
  return DynamicallyClipped(denoise, jnp.asarray(quantile, float), jnp.asarray(floor, float))


class DynamicallyClipped(Transform):
  """Made by `dynamic_threshold`."""

  quantile: Array
  floor: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    return complete(self.process, x, t, jax.tree.map(self._fit, pred.x0), pred.aux)

  def _fit(self, x0: Array) -> Array:
    size = jnp.abs(x0).reshape(x0.shape[0], -1).astype(self.quantile.dtype)
    s = jnp.maximum(jnp.quantile(size, self.quantile, axis=1), self.floor)
    s = s.reshape(-1, *(1,) * (x0.ndim - 1))
    return (jnp.clip(x0, -s, s) * (self.floor / s)).astype(x0.dtype)
