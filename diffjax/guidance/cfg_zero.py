"""CFG-Zero*: guidance of velocities with the unconditional one brought to scale, and a start that stands still."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.guidance.cfg import Free
from diffjax.guidance.rescale import moved_by
from diffjax.guidance.transform import as_scale, cost, null_for, value_at
from diffjax.prediction import Denoise, Pred, predict
from diffjax.process import expand, over_time

__all__ = ['cfg_zero']


def cfg_zero(denoise: Denoise, scale: Any, still: float = 0.0, null: Cond = None) -> 'Zeroed':
  """CFG-Zero*: classifier-free guidance of velocities whose unconditional one is first scaled to fit the conditional.

      s = <c, u> / |u|^2,     velocity = s u + scale (c - s u)            c and u of the probability-flow ODE

  and velocity 0 above the time (1 - still) t_max: the sample stands still while time goes on.   arXiv:2503.18886

  Where c is parallel to u, as in one dimension, it is the conditional velocity whatever the scale; where s = 1 it is
  `cfg`. Scale 1 is the conditional prediction. Costs 2 evaluations of `denoise`, none where it stands still at a scalar
  t. Meant for processes whose networks tell a velocity (`schedules.flow`); others are converted.

  Args:
    denoise: what is asked for predictions.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    still: the share of time, at its noise end, with velocity 0: the first steps of the solver. Published: .04, or one
      step.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: a share outside [0, 1), no `null` is given or known, or the network never saw it in training; or (when
      called) there is no condition.
  """
  if not 0 <= still < 1:
    raise InputError(f'still: got {still}; allowed: a share of at least 0 and below 1')
  moving = None if still == 0 else jnp.asarray((1 - still) * denoise.process.t_max, float)
  return Zeroed(denoise, as_scale(scale), null_for(denoise, null), moving)


class Zeroed(Free):
  """Made by `cfg_zero`; `moving` is the last time at which the sample moves, None where it always does."""

  moving: Array | None

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    moving: Any = self.moving
    if moving is None:
      return self._guided(x, t, cond, memory)
    if cond is None or isinstance(t, dict) or jnp.ndim(t):
      pred, resting = self._guided(x, t, cond, memory), self._resting(x, t)

      def choose(t: Array, guided: Array, resting: Array) -> Array:
        return jnp.where(expand(jnp.asarray(t) > moving, guided), resting, guided)

      return pred._replace(
        x0=over_time(choose, t, pred.x0, resting.x0), eps=over_time(choose, t, pred.eps, resting.eps)
      )
    shapes = jax.eval_shape(self._guided, x, t, cond, memory)

    def stand(x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
      aux = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.aux)
      if memory is not None:
        aux = aux | {'memory': memory}
      return self._resting(x, t)._replace(aux=aux)

    return jax.lax.cond(t > moving, stand, self._guided, x, t, cond, memory)

  def cost(self, t: float) -> int:
    """Two evaluations, none where it stands still."""
    moves = self.moving is None or t <= float(self.moving)
    return 2 * cost(self.denoise, t) if moves else 0

  def _resting(self, x: Data, t: Time) -> Pred:
    return predict(self.process, 'velocity', x, t, jax.tree.map(jnp.zeros_like, x))

  def _guided(self, x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
    c, u, aux = self.pair(x, t, cond, memory)

    def push(t: Array, c: Array, u: Array) -> Array:
      flat_c, flat_u = (a.reshape(len(a), -1).astype(wide(a)) for a in (c, u))
      s = jnp.sum(flat_c * flat_u, 1) / (jnp.sum(flat_u**2, 1) + 1e-8)
      return (expand(value_at(self.scale, jnp.asarray(t)) - 1, c) * (c - expand(s, c) * u)).astype(c.dtype)

    velocities = (self.process.velocity(pred.x0, pred.eps, t) for pred in (c, u))
    pred = moved_by(self, c, t, over_time(push, t, *velocities), 'velocity')
    return pred._replace(aux=aux | {'conditional': c})
