"""Where a student begins: as its teacher, where its network has all of that one's weights and they mean the same."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.methods.parts import Parts, Sampling, Source, same_process

__all__ = ['beginning', 'check_fits', 'fits', 'grafted', 'loads', 'same_network', 'tuned', 'tuning']


def same_network(parts: Parts, teacher: Source) -> bool:
  """Whether the teacher's weights fit the student's network and mean the same: of this kind, on this process."""
  return fits(parts, teacher) and len(jax.tree.leaves(teacher.params)) == len(jax.tree.leaves(_own(parts)))


def fits(parts: Parts, teacher: Source) -> bool:
  """Whether the student's network has all of the teacher's weights, and perhaps more, and they mean the same."""
  if teacher.kind is None or not same_process(parts.process, teacher.process):
    return False
  if jax.tree.structure(teacher.kind) != jax.tree.structure(parts.kind):
    return False
  kinds = zip(*map(jax.tree.leaves, (teacher.kind, parts.kind)), strict=True)
  return all(np.array_equal(a, b) for a, b in kinds) and _within(teacher.params, _own(parts))


def grafted(shapes: Any, params: Params) -> Any:
  """These weights in a network of these shapes; those that it has more are 0."""
  if isinstance(shapes, dict):
    return {name: grafted(part, params.get(name) if params else None) for name, part in shapes.items()}
  return jnp.zeros(shapes.shape, shapes.dtype) if params is None else params


def loads(teacher: Source | None) -> tuple[str, ...]:
  """The roles that begin as another run's weights: the teacher, unless it is a closed form or there is none."""
  return () if teacher is None or teacher.kind is None else ('teacher',)


def tuned(parts: Parts) -> Source:
  """The run `config.base`, as which a student begins that is tuned; `tuning` says so to a `Method`.

  Raises:
    InputError: there is none, it is a closed form, or one of another network, kind, process, shape or labels.
  """
  base = parts.source('base')
  if base.kind is None or not same_network(parts, base):
    raise InputError(f'base: got {base.name}, a closed form or of another network or kind; allowed: a run whose '
                     'config.net and config.loss.kind are those of this one')  # fmt: skip
  return base


def tuning(base: Source) -> dict[str, Any]:
  """How a `Method` begins, and draws, whose student is a run that is tuned."""

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Any:
    return base.drawn(roles['student'], sampling)  # type: ignore[misc]

  return dict(copies={'student': 'base'}, init=lambda key: {}, loads=('base',), generator=generator)


def beginning(parts: Parts, teacher: Source) -> dict[str, Any]:
  """How a `Method` begins whose student does so as its teacher where it can, and afresh elsewhere."""
  begins_as = same_network(parts, teacher)
  return dict(
    copies={'student': 'teacher'} if begins_as else {},
    init=lambda key: {} if begins_as else {'student': parts.init(key)},
    loads=loads(teacher),
  )


def check_fits(parts: Parts, teacher: Source) -> None:
  """Raises InputError where the student cannot begin as its teacher: a closed form, another network or another kind."""
  if teacher.kind is None:
    raise InputError(f'warm: got True with {teacher.name}, a closed form without weights; allowed: False')
  if not same_network(parts, teacher):
    raise InputError(f'warm: got True with {teacher.name} of another network or kind; allowed: config.net and '
                     'config.loss.kind as those of the teacher, or False')  # fmt: skip


def _own(parts: Parts) -> Any:
  return jax.eval_shape(parts.init, jax.random.key(0))


def _within(params: Any, shapes: Any) -> bool:
  if isinstance(params, dict):
    return isinstance(shapes, dict) and all(name in shapes and _within(params[name], shapes[name]) for name in params)
  return not isinstance(shapes, dict) and (params.shape, params.dtype) == (shapes.shape, shapes.dtype)
