"""SINE: a model of one image, mixed with the model it was tuned from."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.cfg import branches
from diffjax.guidance.mix import mixed
from diffjax.guidance.transform import Transform, as_scale, cost, null_for, value_at
from diffjax.prediction import Denoise, Pred

__all__ = ['sine']


def sine(
  denoise: Denoise,
  fit: Denoise,
  own: Cond,
  scale: Any = 7.5,
  share: Any = 0.5,
  until: float = 0.4,
  null: Cond = None,
) -> 'Single':
  """Single-image editing: above a noise level, a model tuned on one image gives a share of what guides the other.

      u + w ((1 - nu) D(c) + nu D_fit(c*) - u)   t > K        u + w (D(c) - u)   t <= K

  u being D without a condition and c* the condition that the image was given. The image so decides what is coarse, the
  condition what is fine. Of Gaussians, whose weights are w_i, the probability-flow ODE from sigma = inf ends with the
  variance prod_i v_i^{w_i}. Costs three evaluations above K, two below: there, at a scalar t, `fit` is not asked.
  Both models see one x; the release for latents gives each a trajectory of its own.   arXiv:2212.04489 sec. 3.2

  Args:
    denoise: D, what is asked for predictions.
    fit: D_fit, of the same process.
    own: c*, the condition of the image, of one sample: a label.
    scale: w: a number, one a sample (B,), or a function of t as a pytree.
    share: nu, 0 to 1: a number, one a sample, or a function of t as a pytree.
    until: K, in the process's own time.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: a share outside [0, 1]; no `null` is given or known; or (when called) there is no condition.
  """
  if not callable(share) and not bool(jnp.all((jnp.asarray(share) >= 0) & (jnp.asarray(share) <= 1))):
    raise InputError(f'share: got {share}; allowed: 0 to 1')
  made = as_scale(scale), as_scale(share), jnp.asarray(until, float), null_for(denoise, null)
  return Single(denoise, fit, jax.tree.map(jnp.asarray, own), *made)


class Single(Transform):
  """Made by `sine`."""

  fit: Any
  own: Any
  scale: Any
  share: Any
  until: Array
  null: Any

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if cond is None:
      raise InputError('cond: got None; allowed: a condition to guide towards, one a sample')
    if jnp.ndim(t):
      return self._three(x, t, cond, memory)
    return jax.lax.cond(t > self.until, self._three, self._two, x, t, cond, memory)

  def cost(self, t: float) -> int:
    """Two evaluations, and above K one of the model of the image."""
    return 2 * cost(self.denoise, t) + (cost(self.fit, t) if t > float(self.until) else 0)

  def _two(self, x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
    c, u = self._both(x, t, cond, memory)
    return mixed(self.process, t, c, [u, c], self._weights(t))

  def _three(self, x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
    c, u = self._both(x, t, cond, memory)
    size = jax.tree.leaves(x)[0].shape[0]
    own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), self.own)
    return mixed(self.process, t, c, [u, self.fit(x, t, own)._replace(aux=())], self._weights(t))

  def _both(self, x: Data, t: Time, cond: Cond, memory: Memory) -> list[Pred]:
    nulls = jax.tree.map(lambda c, n: jnp.broadcast_to(n.astype(c.dtype), c.shape), cond, self.null)
    return branches(self.denoise, x, t, (cond, nulls), memory)[0]

  def _weights(self, t: Time) -> list[Array]:
    """Those of u and of the model of the image, beside D(c)."""
    t = jnp.asarray(t)
    w, nu = value_at(self.scale, t), jnp.where(t > self.until, value_at(self.share, t), 0)
    return [1 - w, w * nu]
