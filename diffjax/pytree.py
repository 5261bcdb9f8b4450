"""The base of the library's records that are pytrees.

JAX (0.10.2, and before) compares the structures of two records by their fields and static values alone, not by their
types: two types with the same fields are equal, though their hashes differ, and a compiled function that has seen the
one may run its program for the other, as chance has it (one pair of types in seventy). Here the name of the type is a
static value, so that structures of different types differ. Derive transforms and denoisers of your own from it too.
"""

import dataclasses
from typing import Any

from flax import struct

__all__ = ['PyTree']


class PyTree(struct.PyTreeNode):
  """A frozen dataclass whose fields are the children of a pytree, `flax.struct.PyTreeNode`, that knows its own type."""

  def __init_subclass__(cls, **options: Any) -> None:
    name = f'{cls.__module__}.{cls.__qualname__}'
    cls.__annotations__ = {**cls.__dict__.get('__annotations__', {}), 'type_name': str}
    cls.type_name = struct.field(pytree_node=False, default=name, repr=False, kw_only=True)
    super().__init_subclass__(**options)

  @classmethod
  def children(cls) -> tuple[str, ...]:
    """The names of the fields that are children, in order."""
    return tuple(field.name for field in dataclasses.fields(cls) if field.metadata.get('pytree_node', True))
