"""Classifier-free guidance: extrapolate from what the network says without the condition to what it says with it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.mix import mixed
from diffjax.guidance.transform import Transform, as_scale, cost, null_for, value_at
from diffjax.prediction import Denoise, Pred

__all__ = ['cfg']


def cfg(denoise: Denoise, scale: Any, null: Cond = None, interval: tuple[float, float] | None = None) -> 'Guided':
  """Classifier-free guidance: pushes the conditional prediction away from the unconditional one.

  u + scale (c - u), c with the condition and u without, in one batched call.   arXiv:2207.12598

  Scale 1 is the plain conditional prediction, 0 the unconditional one; both x0 and eps are extrapolated, so the
  prediction stays consistent. Costs 2 evaluations of `denoise`. What the denoiser remembers is kept for both branches.
  The two are mixed by `mixed`, whose weight rate makes particles sample c^scale u^(1 - scale); neither the ODE nor the
  SDE does. The conditional prediction is in `aux['conditional']` for what is laid over this.

  Args:
    denoise: what is asked for predictions.
    scale: a number, one a sample (B,), or a function of t, as a pytree (`jax.tree_util.Partial(fn, *numbers)`).
    null: the condition that means none; the network's own by default.
    interval: (lo, hi): guide where lo < t <= hi alone. Elsewhere the prediction is the conditional one; at a scalar
      t the other branch is then not evaluated and the cost is 1.   arXiv:2404.07724

  Raises:
    InputError: no `null` is given or known, or the network never saw it in training; lo >= hi; or (when called) there
      is no condition.
  """
  null = null_for(denoise, null)
  if interval is not None and (len(interval) != 2 or not interval[0] < interval[1]):
    raise InputError(f'interval: got {interval}; allowed: (lo, hi) in t with lo < hi')
  ends = None if interval is None else jnp.asarray(interval, float)
  return Guided(denoise, as_scale(scale), null, ends)


class Free(Transform):
  """The base of guidances by the network's own unconditional prediction; both come from one batched call."""

  scale: Any
  null: Cond

  def pair(self, x: Data, t: Time, cond: Cond, memory: Memory) -> tuple[Pred, Pred, dict[str, Any]]:
    """The prediction with the condition, the one without, and what else the denoiser returned.

    Raises:
      InputError: there is no condition.
    """
    if cond is None:
      raise InputError('cond: got None; allowed: a condition to guide towards, one a sample')
    (c, u), aux = branches(self.denoise, x, t, (cond, nulls(self.null, cond)), memory)
    return c, u, aux if isinstance(aux, dict) else {}

  def cost(self, t: float) -> int:
    """Two evaluations."""
    return 2 * cost(self.denoise, t)


class Guided(Free):
  """Made by `cfg`."""

  interval: Array | None = None

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if self.interval is None or isinstance(t, dict) or jnp.ndim(t) or cond is None:
      return self._both(x, t, cond, memory)
    return jax.lax.cond(self._inside(t), self._both, self._conditional, x, t, cond, memory)

  def cost(self, t: float) -> int:
    """Two evaluations, one outside the interval."""
    return cost(self.denoise, t) * (1 + bool(self._inside(jnp.asarray(t, float))))

  def _inside(self, t: Array) -> Array:
    if self.interval is None:
      return jnp.ones_like(t, bool)
    return (self.interval[0] < t) & (t <= self.interval[1])

  def _both(self, x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
    c, u, aux = self.pair(x, t, cond, memory)

    def weight(t: Array) -> Array:  # of u; 0 at scale 1, which is exactly c
      return jnp.where(self._inside(t), 1 - value_at(self.scale, t), 0)

    return mixed(self.process, t, c._replace(aux=aux | {'conditional': c}), (u,), (weight,))

  def _conditional(self, x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
    """The conditional branch alone; the memory of the other one stays as it was."""
    pred = self.denoise(x, t, cond, jax.tree.map(lambda m: m[:, 0], memory))
    aux = pred.aux if isinstance(pred.aux, dict) else {}
    if 'memory' in aux:
      old = aux['memory'] if memory is None else jax.tree.map(lambda m: m[:, 1], memory)
      aux = aux | {'memory': jax.tree.map(lambda *m: jnp.stack(m, 1), aux['memory'], old)}
    alone = pred._replace(aux=())
    return mixed(self.process, t, pred._replace(aux=aux | {'conditional': alone}), (alone,), (jnp.zeros(()),))


def nulls(null: Cond, cond: Cond) -> Any:
  """The condition that means none, for as many samples as `cond`; what is told beside a label is told both."""
  if isinstance(cond, dict) and not isinstance(null, dict):
    return cond | {'label': jnp.broadcast_to(null, jnp.shape(cond['label']))}
  return jax.tree.map(lambda c, n: jnp.broadcast_to(n.astype(c.dtype), c.shape), cond, null)


def branches(denoise: Denoise, x: Data, t: Time, conds: tuple, memory: Memory = None) -> tuple[list[Pred], Any]:
  """The predictions under k conditions by one call of k times the batch, and what else the denoiser returned.

  The branches of a sample are neighbours in that batch, so a batch sharded over devices stays where it is. Memory
  has leaves (B, k, ...); of other entries of `aux` the first condition's are kept.
  """
  k = len(conds)

  def repeat(a: Any) -> Array:
    return jnp.repeat(jnp.asarray(a), k, axis=0) if jnp.ndim(a) else jnp.asarray(a)

  def join(a: Array) -> Array:
    return a.reshape(a.shape[0] * k, *a.shape[2:])

  def part(a: Array) -> Array:
    return a.reshape(a.shape[0] // k, k, *a.shape[1:])

  cond = jax.tree.map(lambda *c: join(jnp.stack(c, 1)), *conds)
  pred = denoise(jax.tree.map(repeat, x), jax.tree.map(repeat, t), cond, jax.tree.map(join, memory))
  pred = jax.tree.map(part, pred)
  aux = jax.tree.map(lambda a: a[:, 0], pred.aux)
  if isinstance(aux, dict) and 'memory' in aux:
    aux = aux | {'memory': pred.aux['memory']}
  return [jax.tree.map(lambda a, i=i: a[:, i], pred._replace(aux=())) for i in range(k)], aux
