"""Rectified gradient guidance: classifier-free guidance seen through the Jacobian of the denoiser."""

from typing import Any

import jax
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.guidance.cfg import Free
from diffjax.guidance.rescale import moved_by
from diffjax.guidance.transform import as_scale, cost, null_for, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand, over_time

__all__ = ['rectified_gradient']


def rectified_gradient(denoise: Denoise, scale: Any, null: Cond = None) -> 'Rectified':
  """REG: guides by the difference of the predictions as it will reach the data, through the conditional Jacobian.

      x0 = c + (scale - 1) alpha J_c (c - u),   J_c = d c / d x        one jvp                       arXiv:2501.18865

  Nearer to the product c^scale u^(1 - scale) than `cfg`, whose difference is that at the noisy point. The release takes
  the diagonal of row sums in place of J_c. Scale 1 is the conditional prediction. Costs 4: both branches, and the
  conditional one again with its jvp.

  Args:
    denoise: what is asked for predictions.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: no `null` is given or known, or the network never saw it in training; or (when called) there is no
      condition.
  """
  return Rectified(denoise, as_scale(scale), null_for(denoise, null))


class Rectified(Free):
  """Made by `rectified_gradient`."""

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    c, u, aux = self.pair(x, t, cond, memory)
    own = jax.tree.map(lambda m: m[:, 0], memory)
    gap = jax.tree.map(lambda c, u, x: (c - u).astype(x.dtype), c.x0, u.x0, x)
    _, carried = jax.jvp(lambda x: self.denoise(x, t, cond, own).x0, (x,), (gap,))

    def push(t: Array, carried: Array) -> Array:
      alpha, _ = self.process.schedule(t)
      return (expand((value_at(self.scale, t) - 1) * alpha, carried) * carried).astype(carried.dtype)

    pred = moved_by(self, c, t, over_time(push, t, carried), 'x0')
    return pred._replace(aux=aux | {'conditional': c})

  def cost(self, t: float) -> int:
    """Both branches, and a forward with its jvp."""
    return 4 * cost(self.denoise, t)
