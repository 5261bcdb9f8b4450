"""Where a student begins: as its teacher, where that is the same network of the same kind."""

import jax
import numpy as np

from diffjax.methods import Parts, Source, same_process

__all__ = ['loads', 'same_network']


def same_network(parts: Parts, teacher: Source) -> bool:
  """Whether the teacher's weights fit the student's network and mean the same: of this kind, on this process."""
  own = jax.eval_shape(parts.init, jax.random.key(0))
  shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) for params in (own, teacher.params)]
  if teacher.kind is None or shapes[0] != shapes[1] or not same_process(parts.process, teacher.process):
    return False
  if jax.tree.structure(teacher.kind) != jax.tree.structure(parts.kind):
    return False
  return all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (teacher.kind, parts.kind)), strict=True))


def loads(teacher: Source) -> tuple[str, ...]:
  """The roles that begin as another run's weights: the teacher, unless it is a closed form."""
  return () if teacher.kind is None else ('teacher',)
