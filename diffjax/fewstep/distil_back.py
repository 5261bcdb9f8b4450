"""Distribution backtracking: the teacher walks back to itself from the law that the student begins with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.fewstep.critics import Setting, setting
from diffjax.fewstep.direction import Field, matched, ranks
from diffjax.fewstep.flow_map import PROGRESS, progress
from diffjax.fewstep.stages import delayed
from diffjax.methods.parts import Parts
from diffjax.methods.starts import same_network
from diffjax.pytree import PyTree
from diffjax.train.roles import Buffer, Method

__all__ = ['distil_back', 'teacher_index']


def distil_back(
  parts: Parts,
  *,
  recorded: int = 5,
  apart: int = 100,
  interval: int = 1000,
  level: float = 0.0,
  scale: float = 1.0,
  pace: float = 1.0,
) -> Method:
  """Distribution matching whose teacher begins near what the student makes, and leads it back to the real one.

  First the student rests, and the critic, which begins as the teacher, learns what that one makes; on the way N copies
  phi_1 .. phi_N of it are kept. Then the student moves along D_phi(x_t) - D_psi(x_t), normalised as in
  `distribution_matching`, phi being phi_{N-1}, .., phi_1 for `interval` steps each and then the teacher.

  arXiv:2408.15991 Alg. 1-2

  Args:
    parts: with a teacher of the student's network and kind.
    recorded: N; 0 is distribution matching without pairs.
    apart: steps between two of the copies.
    interval: steps that each of them teaches.
    level: the time at which the student is asked; t_max unless positive.
    scale: of the guidance, the teacher's and its copies'.
    pace: the critic's learning rate over the student's.

  Raises:
    InputError: no teacher, one of another network or a closed form; a number out of its range.
  """
  if recorded < 0 or apart < 1 or interval < 1:
    raise InputError(f'recorded, apart, interval: got {recorded}, {apart}, {interval}; allowed: at least 0, 1, 1')
  own = setting(parts, levels=(level,) if level else (), scale=scale, pace=pace)
  if recorded and not same_network(parts, own.source):
    raise InputError(f'recorded: got {recorded} with {own.source.name}, a closed form or another network than the '
                     "student's; allowed: 0")  # fmt: skip
  rest = recorded * apart

  def fields(roles: Mapping[str, Any], cond: Cond) -> tuple[Field, Field]:
    first, critic = own.fields(roles, cond)
    if not recorded:
      return first, critic
    index = teacher_index(roles[PROGRESS] - rest, recorded, interval)
    params = jax.tree.map(
      lambda real, kept: jnp.where(index == 0, real, kept[jnp.maximum(index - 1, 0)]),
      roles['teacher'],
      roles['chain'].params,
    )
    return Field(1.0, own.teacher({**roles, 'teacher': params}), cond), critic

  student = own.student_phase(matched(own.make, fields, parts.process, ranks()))
  if rest:
    student = dataclasses.replace(student, optimiser=delayed(student.optimiser, rest))
  buffers = {PROGRESS: progress(), 'chain': _chain(own, recorded, apart)} if recorded else {}
  return own.method((own.critic_phase(), student), buffers=buffers)


def teacher_index(step: Array | int, recorded: int, interval: int) -> Array:
  """Who teaches at a step of the way back: N - 1 at first, one less every `interval` steps, at last 0, the teacher."""
  return jnp.clip(recorded - 1 - jnp.asarray(step) // interval, 0, max(recorded - 1, 0))


class Chain(PyTree):
  """The critic's weights at N moments, (N, ...) each, the latest last."""

  params: Any


def _chain(own: Setting, recorded: int, apart: int) -> Buffer:
  """Copy i, from 1, is taken when the critic has moved i `apart` times."""

  def init(key: Array) -> Chain:
    return Chain(jax.tree.map(lambda leaf: jnp.zeros((recorded, *leaf.shape), leaf.dtype), own.source.params))

  def renew(roles: dict[str, Any], kept: Chain, batch: Any, key: Array) -> Chain:
    due = roles[PROGRESS] == apart * jnp.arange(1, recorded + 1)

    def put(stack: Array, leaf: Array) -> Array:
      return jnp.where(due.reshape(-1, *(1 for _ in leaf.shape)), leaf, stack)

    taken = lambda: Chain(jax.tree.map(put, kept.params, roles['critic']))  # noqa: E731
    return jax.lax.cond(jnp.any(due), taken, lambda: kept)

  return Buffer(init, renew)
