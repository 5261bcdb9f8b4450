"""Gradient descent on the numbers of a table, its times included, against a solution of many evaluations."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from diffjax import labels
from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.search.free import Free, free
from diffjax.search.population import member, population, rms
from diffjax.solvers import Table, sample

__all__ = ['Target', 'descend']

MOVES = ('spacing', 'look', 'scale', 'told')


class Target(NamedTuple):
  """A denoiser, starts x (B, ...), where they should end, and their conditions."""

  denoise: Any
  x: Array
  reference: Array
  cond: Cond = None


class Group(PyTree):
  """Targets of one structure, stacked where there are several."""

  targets: Target
  many: bool = struct.field(pytree_node=False)


def descend(
  targets: Sequence[Target],
  tables: Table | Sequence[Table],
  steps: int = 800,
  *,
  rate: float = 0.01,
  batch: int | None = None,
  move: Sequence[str] = MOVES,
  progress: Callable[[int, float], None] | None = None,
) -> Table:
  """The table that Adam reaches from the best of `tables`: least mean over targets of rms error / reference's spread.

  A table fitted to one target knows it; one fitted to a family of some twenty serves others of its kind (`Free` says
  which numbers move). Where it begins matters: give the published methods on several grids. Never worse on the targets
  than where it began.

  Args:
    targets: what the table is fitted to.
    tables: of one number of evaluations, or one alone.
    steps: the number of Adam steps.
    rate: of the first step; it falls to 0 along a cosine.
    batch: starts a step, in turn; all of them where None.
    move: which numbers of `Free` move; without 'scale' and 'told' every row keeps to the line alpha x0 + sigma eps.
    progress: called with the step and its loss.

  Raises:
    InputError: no target or table, targets of different processes, an unknown number, or a table that `free` refuses.
  """
  _check(targets, steps, rate, move)
  groups = _stacked(targets)
  table = tables if isinstance(tables, Table) else _best(tables, groups)
  start = free(targets[0].denoise.process, table)
  moving = {name: getattr(start, name) for name in move}
  moments = optax.scale_by_adam().init(moving)
  for i in range(steps):
    now = rate / 2 * (1 + np.cos(np.pi * i / steps))
    moving, moments, value = _step(start, moving, moments, groups, jnp.asarray(i), jnp.asarray(now, float), batch)
    if progress:
      progress(i, float(value))
  end = start.replace(**moving).final()
  before, after = (float(_score(made, groups)) for made in (table, end))
  return end if after <= before else table


def _best(tables: Sequence[Table], groups: list[Group]) -> Table:
  """The table of least loss on the targets."""
  stacked = population(tables)
  losses = [float(_score(member(stacked, i), groups)) for i in range(len(tables))]
  return tables[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


@jax.jit
def _score(table: Table, groups: list[Group]) -> Array:
  return _loss(table, groups, jnp.asarray(0), None)


def _loss(table: Table, groups: list[Group], i: Array, batch: int | None) -> Array:
  def one(target: Target) -> Array:
    denoise, x, wanted, cond = target
    spread = rms(wanted, jnp.mean(wanted, 0, keepdims=True))
    if batch is not None and batch < len(x):
      place = (i * batch + jnp.arange(batch)) % len(x)
      x, wanted, cond = jax.tree.map(lambda leaf: leaf[place], (x, wanted, cond))
    return rms(sample(Recomputed(denoise), table, x, None, cond), wanted) / spread

  parts = [jax.vmap(one)(group.targets) if group.many else one(group.targets)[None] for group in groups]
  return jnp.mean(jnp.concatenate(parts))


def _descent(
  start: Free, moving: dict, moments: Any, groups: list[Group], i: Array, rate: Array, batch: int | None
) -> tuple[dict, Any, Array]:
  def loss(moving: dict) -> Array:
    return _loss(start.replace(**moving).table(), groups, i, batch)

  value, slope = jax.value_and_grad(loss)(moving)
  slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), slope)  # a step that diverged says nothing
  rise, moments = optax.scale_by_adam().update(slope, moments)
  return jax.tree.map(lambda p, u: p - rate * u, moving, rise), moments, value


_step = jax.jit(_descent, static_argnums=6)


class Recomputed(PyTree):
  """A denoiser whose inside is computed again on the way back instead of kept: memory of one evaluation."""

  denoise: Any

  @property
  def process(self) -> Process:
    return self.denoise.process

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    return jax.checkpoint(_call)(self.denoise, x, t, cond, memory)


def _call(denoise: Denoise, x: Data, t: Time, cond: Cond, memory: Memory) -> Pred:
  return denoise(x, t, cond, memory)


def _stacked(targets: Sequence[Target]) -> list[Group]:
  """Targets of one structure run side by side in one program; one alone is left as it is."""
  kinds: dict[Any, list[Target]] = {}
  for target in targets:
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(target))
    kinds.setdefault((jax.tree.structure(target), shapes), []).append(target)
  return [
    Group(jax.tree.map(lambda *leaves: jnp.stack(leaves), *group) if len(group) > 1 else group[0], len(group) > 1)
    for group in kinds.values()
  ]


def _check(targets: Sequence[Target], steps: int, rate: float, move: Sequence[str]) -> None:
  if not targets:
    raise InputError('targets: got none; allowed: at least one')
  for target in targets:
    labels.check_for(target.denoise, target.cond)
  leaves = [jax.tree.leaves(target.denoise.process) for target in targets]
  if any(len(a) != len(leaves[0]) or not all(map(np.array_equal, a, leaves[0])) for a in leaves):
    raise InputError('targets: got denoisers of different processes; allowed: one process')
  if steps < 1 or not rate > 0:
    raise InputError(f'steps, rate: got {steps}, {rate}; allowed: at least 1, above 0')
  unknown = [name for name in move if name not in MOVES]
  if unknown or not move:
    raise InputError(f'move: got {tuple(move)}; allowed: some of {", ".join(MOVES)}')
