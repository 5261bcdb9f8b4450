"""Time shift: ask the network at the time whose noise level the sample really has."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.lax import stop_gradient

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand, over_time

__all__ = ['time_shift']

SHIFTS = ('source', 'net_only')
HALVINGS = 24  # of the window: below float32's resolution of t


def time_shift(denoise: Denoise, window: float, cutoff: float, shift: str = 'source') -> 'TimeShifted':
  """Time shift: asks the network at the time whose noise level the sample really has.

  The prediction at t_s = argmin |var(x) - sigma(t_s)^2| over [t - window / 2, t + window / 2].   arXiv:2305.15583

  var(x) is the variance over all elements of the sample, so t_s is one a sample. It holds the data's variance too,
  alpha^2 var(x0), which is small against sigma^2 above `cutoff` alone; and its own error of sqrt(2 / d) of itself, so
  small images want a small window. At t <= cutoff, and at t_max, where x is the noise itself, t stays. No gradient
  flows through t_s. No evaluation more.

      source     (x0, eps) as predicted at t_s, the paper's rule: x0 = (x - sigma(t_s) eps) / alpha(t_s). The pair is
                 consistent at t_s, not at t: run it with `solvers.pair_form(table, process)`, or with DDIM.
      net_only   eps as predicted at t_s, and x0 = (x - sigma(t) eps) / alpha(t): consistent, for every solver.

  (Moving the time a step goes to, as some of the published code does, is no matter of the denoiser.)

  Args:
    denoise: what is asked for predictions.
    window: in the process's own time; published 2 to 50 of 1000 steps, more for fewer steps.
    cutoff: in the process's own time; published 100 to 400 of 1000.
    shift: 'source' or 'net_only', as above.

  Raises:
    InputError: window or cutoff is negative, or another shift.
  """
  for field, value in (('window', window), ('cutoff', cutoff)):
    if not value >= 0:
      raise InputError(f'{field}: got {value}; allowed: a number of at least 0')
  if shift not in SHIFTS:
    raise InputError(f'shift: got {shift!r}; allowed: {", ".join(SHIFTS)}')
  return TimeShifted(denoise, jnp.asarray(window, float), jnp.asarray(cutoff, float), shift == 'net_only')


class TimeShifted(Transform):
  """Made by `time_shift`; `consistent` is its shift net_only."""

  window: Array
  cutoff: Array
  consistent: bool = struct.field(pytree_node=False)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    shifted = self.times(x, t)
    pred = self.denoise(x, shifted, cond, memory)
    if not self.consistent:
      return pred

    def back(x0: Array, eps: Array, x: Array, t: Array, t_s: Array) -> Array:
      alpha, sigma = self.process.schedule(jnp.asarray(t))
      moved = t_s != t
      alpha = jnp.where(moved, alpha, 1.0)  # at t_max it may be 0
      x0_t = (x - expand(sigma, x) * eps) / expand(alpha, x)
      return jnp.where(expand(moved, x), x0_t, x0).astype(x.dtype)

    every = over_time(lambda t, x: jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), t, x)
    return pred._replace(x0=jax.tree.map(back, pred.x0, pred.eps, x, every, shifted))

  def times(self, x: Data, t: Time) -> Any:
    """The shifted times t_s (B,) of each sample, and of each modality where x has several."""

    def one(t: Array, x: Array) -> Array:
      t = jnp.broadcast_to(jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32)), x.shape[:1])
      found = _nearest(self.process, _variance(x), t - self.window / 2, t + self.window / 2)
      return jnp.where((t > self.cutoff) & (t < self.process.t_max), found, t).astype(t.dtype)

    return over_time(one, t, x)


def _variance(x: Array) -> Array:
  return jnp.var(x.reshape(x.shape[0], -1).astype(jnp.promote_types(x.dtype, jnp.float32)), axis=1)


def _nearest(process: Process, variance: Array, low: Array, high: Array) -> Array:
  """The time of [low, high] and of the process with sigma^2 nearest to `variance`, by bisection: sigma rises in t."""
  low, high = jnp.clip(low, 0, process.t_max), jnp.clip(high, 0, process.t_max)

  def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = ends
    middle = (low + high) / 2
    noisier = process.schedule(middle)[1] ** 2 > variance
    return jnp.where(noisier, low, middle), jnp.where(noisier, middle, high)

  low, high = jax.lax.fori_loop(0, HALVINGS, halve, stop_gradient((low, high)))
  return stop_gradient((low + high) / 2)
