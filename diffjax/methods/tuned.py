"""Methods that begin as a run: whether its weights fit the student's network, and how a student is that run, tuned."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffjax.errors import InputError
from diffjax.methods.parts import Parts, Sampling, Source, same_process

__all__ = ['fits', 'same_network', 'tuned', 'tuning']


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


def _own(parts: Parts) -> Any:
  return jax.eval_shape(parts.init, jax.random.key(0))


def _within(params: Any, shapes: Any) -> bool:
  if isinstance(params, dict):
    return isinstance(shapes, dict) and all(name in shapes and _within(params[name], shapes[name]) for name in params)
  return not isinstance(shapes, dict) and (params.shape, params.dtype) == (shapes.shape, shapes.dtype)
