"""Where a student begins: as its teacher, where its network has all of that one's weights and they mean the same."""

from typing import Any

import jax.numpy as jnp

from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.methods import Parts, Source
from diffjax.methods.tuned import fits, same_network, tuned, tuning

__all__ = ['beginning', 'check_fits', 'fits', 'grafted', 'loads', 'same_network', 'tuned', 'tuning']


def grafted(shapes: Any, params: Params) -> Any:
  """These weights in a network of these shapes; those that it has more are 0."""
  if isinstance(shapes, dict):
    return {name: grafted(part, params.get(name) if params else None) for name, part in shapes.items()}
  return jnp.zeros(shapes.shape, shapes.dtype) if params is None else params


def loads(teacher: Source | None) -> tuple[str, ...]:
  """The roles that begin as another run's weights: the teacher, unless it is a closed form or there is none."""
  return () if teacher is None or teacher.kind is None else ('teacher',)


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
