"""What one denoiser of several modalities says of some of them: marginals, conditionals, the guided joint.

The joint denoiser takes x = {name: x^m} and t = {name: t^m} (`unidiffuser`, or anything else). A modality with t^m = 0
is given clean; one with t^m = t_max and pure noise for x^m is marginalised.   arXiv:2303.06555
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.prediction import Denoise, Pred, check_null
from diffjax.process import Process, expand
from diffjax.pytree import PyTree

__all__ = ['conditional', 'clean', 'marginalised', 'joint', 'Part', 'GuidedJoint']


def clean(values: dict[str, Any]) -> dict[str, tuple[Any, Array]]:
  """The condition of `conditional` that these modalities are clean, {name: (value, 0)}; values (B, ...)."""
  return {name: (value, jnp.zeros(_batch(value))) for name, value in values.items()}


def marginalised(process: Process, noise: dict[str, Any]) -> dict[str, tuple[Any, Array]]:
  """The condition of `conditional` that nothing is known of these modalities, {name: (noise, t_max)}.

  noise (B, ...) as `process.prior` draws it, one draw a sample; or with a batch of 1, one for all.
  """
  return {name: (z, jnp.full(_batch(z), process.t_max)) for name, z in noise.items()}


def conditional(denoise: Denoise, names: str | tuple[str, ...], noise: dict[str, Any] | None = None) -> 'Part':
  """The denoiser of some modalities under what the condition says of all others.

  Called with cond = clean({..}) it predicts given these; with cond = {**clean({..}), **marginalised(process, {..})} the
  rest is marginalised; with cond = None everything else is, by `noise`. That is also the null condition of guidance:
  `cfg(conditional(denoise, 'image', {'text': z}), 3.)` needs no network trained without conditions.

  Args:
    denoise: the joint denoiser.
    names: one modality, x then being its value; or several, x then being a dict.
    noise: {name: draws from the prior at t_max} of the other modalities; None where a condition is always given.

  Raises:
    InputError: there is noise, and the network was not trained at the ends of time.
  """
  if noise is not None:
    check_null(denoise)
  return Part(denoise, None if noise is None else marginalised(denoise.process, noise), names=names)


def joint(denoise: Denoise, scale: Any, noise: dict[str, Any]) -> 'GuidedJoint':
  """All modalities at one time, guided away from their independence.

  m^m + scale (e^m - m^m): e is the joint prediction, m^m that of the m-th marginal, the others being `noise` at t_max.
  Scale 1 is the joint itself, which needs no wrapper: `denoise(x, t)`. Costs 1 + M evaluations, in one batched call.

  Raises:
    InputError: less than two modalities, or the network was not trained at the ends of time.
  """
  check_null(denoise)
  if len(noise) < 2:
    raise InputError(f'noise: got {sorted(noise)}; allowed: draws of all modalities, at least two')
  return GuidedJoint(denoise, jnp.asarray(scale, float), marginalised(denoise.process, noise))


class Part(PyTree):
  """Made by `conditional`."""

  denoise: Denoise
  null: Cond = None
  names: str | tuple[str, ...] = struct.field(pytree_node=False, kw_only=True)

  @property
  def process(self) -> Process:
    """The process of the modalities."""
    return self.denoise.process

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    """The pair of the named modalities, given the others."""
    others = self.null if cond is None else cond
    if others is None:
      raise InputError('cond: got None; allowed without `noise`: what is given of the other modalities')
    values = {self.names: x} if isinstance(self.names, str) else {name: x[name] for name in self.names}
    times = {**{name: time for name, (_, time) in others.items()}, **dict.fromkeys(values, t)}
    known = _rows({name: value for name, (value, _) in others.items()}, _batch(x))
    pred = self.denoise({**known, **values}, _rows(times, _batch(x)), None, memory)

    def own(tree: dict[str, Any]) -> Any:
      return tree[self.names] if isinstance(self.names, str) else {name: tree[name] for name in self.names}

    return Pred(own(pred.x0), own(pred.eps), pred.aux)


class GuidedJoint(PyTree):
  """Made by `joint`."""

  denoise: Denoise
  scale: Array
  null: Cond

  @property
  def process(self) -> Process:
    """The process of the modalities."""
    return self.denoise.process

  def cost(self, t: float) -> int:
    """One evaluation and one a modality, 1 + M."""
    return 1 + len(self.null)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    """The guided pair of all modalities."""
    names, batch = sorted(x), _batch(x)
    t = {name: jnp.broadcast_to(t[name] if isinstance(t, dict) else t, (batch,)) for name in names}
    noise = _rows({name: value for name, (value, _) in self.null.items()}, batch)
    end = _rows({name: time for name, (_, time) in self.null.items()}, batch)
    states = [x, *({**noise, name: x[name]} for name in names)]
    times = [t, *({**end, name: t[name]} for name in names)]

    def join(*leaves: Array) -> Array:  # branches of a sample are neighbours: a sharded batch stays where it is
      return jnp.stack(leaves, 1).reshape(batch * len(leaves), *leaves[0].shape[1:])

    cond = jax.tree.map(lambda c: jnp.repeat(c, len(states), axis=0), cond)
    pred = self.denoise(jax.tree.map(join, *states), jax.tree.map(join, *times), cond)
    pred = jax.tree.map(lambda a: a.reshape(batch, len(states), *a.shape[1:]), pred._replace(aux=()))

    def guided(tree: dict[str, Any]) -> dict[str, Any]:
      return {
        name: jax.tree.map(lambda a, i=i: self._mix(a[:, 0], a[:, i]), tree[name]) for i, name in enumerate(names, 1)
      }

    return Pred(guided(pred.x0), guided(pred.eps))

  def _mix(self, e: Array, m: Array) -> Array:
    return (e + expand(self.scale - 1, e) * (e - m)).astype(e.dtype)  # exactly e at scale 1


def _batch(tree: Any) -> int:
  return jax.tree.leaves(tree)[0].shape[0]


def _rows(tree: Any, batch: int) -> Any:
  """Leaves with a batch of 1 repeated; numbers stay."""
  return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *a.shape[1:])) if jnp.ndim(a) else a, tree)
