"""A curriculum in one program: which stage a step lies in is data, and the student of a stage teaches the next one.

A plan cuts the steps of a run into stages. The tutor is a buffer: it counts the steps, and when a stage begins it takes
on the student's weights. Optimisers begin anew there too. Nothing of this is static, so a run compiles once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diffjax.errors import InputError
from diffjax.pytree import PyTree
from diffjax.train.roles import Buffer

__all__ = ['Plan', 'Tutor', 'delayed', 'halvings', 'plan', 'restarted', 'tutor']


class Plan(NamedTuple):
  """The first step of each stage, and its number of steps."""

  starts: tuple[int, ...]
  lengths: tuple[int, ...]

  def stage(self, step: Array) -> Array:
    """The stage, from 0, in which a step lies."""
    return jnp.sum(step >= jnp.asarray(self.starts[1:], jnp.int32), dtype=jnp.int32)


class Tutor(PyTree):
  """What the tutor's buffer holds: the number of the step, from 0, and the student's weights when its stage began."""

  step: Array
  params: Any


def plan(steps: int, stages: int, shares: Sequence[float] = ()) -> Plan:
  """Cuts the steps of a run into stages, of these shares or equal.

  Raises:
    InputError: another number of shares than of stages, a share that is not positive, a stage without a step.
  """
  parts = np.asarray(tuple(shares) or (1.0,) * stages, float)
  if len(parts) != stages or not (parts > 0).all():
    raise InputError(f'stages: got {tuple(shares)}; allowed: a positive share of the run for each of {stages} stages')
  ends = np.round(np.cumsum(parts) / parts.sum() * steps).astype(int)
  lengths = np.diff(ends, prepend=0)
  if not (lengths > 0).all():
    raise InputError(f'stages: got {stages} in {steps} steps; allowed: at least one step each')
  return Plan(tuple(map(int, ends - lengths)), tuple(map(int, lengths)))


def halvings(start: int, end: int) -> tuple[int, ...]:
  """The numbers of steps of the students of a teacher of `start` steps: start / 2, start / 4, .., end.

  Raises:
    InputError: end times a power of two is not start, or nothing is halved.
  """
  counts = [start]
  while isinstance(end, int) and end > 0 and counts[-1] > end and counts[-1] % 2 == 0:
    counts.append(counts[-1] // 2)
  if counts[-1] != end or len(counts) < 2:
    raise InputError(f'start, end: got {start}, {end}; allowed: start = end times a power of two, at least 2')
  return tuple(counts[1:])


def tutor(shapes: Any, starts: Sequence[int], role: str = 'student') -> Buffer:
  """The buffer of a `Tutor`: it takes on the weights of `role`, of these shapes, at each of these steps."""

  def init(key: Array) -> Tutor:
    return Tutor(jnp.asarray(-1, jnp.int32), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))

  def renew(roles: dict[str, Any], kept: Tutor, batch: Any, key: Array) -> Tutor:
    step = kept.step + 1
    begins = jnp.any(step == jnp.asarray(starts, jnp.int32))
    return Tutor(step, jax.lax.cond(begins, lambda: roles[role], lambda: kept.params))

  return Buffer(init, renew)


class _Restarted(NamedTuple):
  count: Array
  inner: Any


def restarted(make: Callable[[int], optax.GradientTransformation], stages: Plan) -> optax.GradientTransformation:
  """An optimiser that begins anew with every stage, its moments and its schedule over the stage's own length.

  It counts its updates: where steps were skipped it begins so many steps later.
  """
  lengths = sorted(set(stages.lengths))
  inner = [make(length) for length in lengths]
  which = jnp.asarray([lengths.index(length) for length in stages.lengths], jnp.int32)

  def init(params: Any) -> _Restarted:
    return _Restarted(jnp.zeros((), jnp.int32), inner[0].init(params))

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    begins = jnp.any(state.count == jnp.asarray(stages.starts, jnp.int32))
    own = jax.lax.cond(begins, lambda: inner[0].init(params), lambda: state.inner)
    branches = [optimiser.update for optimiser in inner]
    updates, own = jax.lax.switch(which[stages.stage(state.count)], branches, updates, own, params)
    return updates, _Restarted(state.count + 1, own)

  return optax.GradientTransformation(init, update)


def delayed(optimiser: optax.GradientTransformation, rest: int) -> optax.GradientTransformation:
  """An optimiser that rests for so many updates: they move neither the weights nor its own state."""

  def init(params: Any) -> _Restarted:
    return _Restarted(jnp.zeros((), jnp.int32), optimiser.init(params))

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    still = lambda: (jax.tree.map(jnp.zeros_like, updates), state.inner)  # noqa: E731
    move = lambda: optimiser.update(updates, state.inner, params)  # noqa: E731
    moved, own = jax.lax.cond(state.count >= rest, move, still)
    return moved, _Restarted(state.count + 1, own)

  return optax.GradientTransformation(init, update)
