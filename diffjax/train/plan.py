"""What a run will need, without running it: bytes a device from shapes and shardings, the rest from a compiled step.

Every leaf here is an array or a `jax.ShapeDtypeStruct` that has a sharding.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax

__all__ = ['Group', 'bytes_in_all', 'bytes_per_device', 'counted', 'groups', 'temporary']


@dataclass(frozen=True)
class Group:
  """Leaves of one shape, dtype and PartitionSpec: how many, the path of the first, bytes of all and on each device."""

  shape: tuple[int, ...]
  dtype: Any
  spec: tuple
  leaves: int
  path: str
  bytes_in_all: int
  bytes_per_device: int


def bytes_in_all(tree: Any) -> int:
  """Of one copy of every leaf."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def bytes_per_device(tree: Any) -> int:
  """Of the shards that one device holds: every device holds as many, since shardings split evenly."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def groups(tree: Any) -> list[Group]:
  """The leaves by shape, dtype and PartitionSpec, the most bytes first."""
  found: dict[tuple, list[tuple[str, Any]]] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    named = jax.tree_util.keystr(path, simple=True, separator='/'), leaf
    found.setdefault((leaf.shape, leaf.dtype, tuple(leaf.sharding.spec)), []).append(named)
  made = []
  for (shape, dtype, spec), members in found.items():
    leaves = [leaf for _, leaf in members]
    path = members[0][0]
    made.append(Group(shape, dtype, spec, len(members), path, bytes_in_all(leaves), bytes_per_device(leaves)))
  return sorted(made, key=lambda group: -group.bytes_in_all)


def temporary(compiled: Any) -> int:
  """Bytes of a device that a compiled program takes beside its arguments: activations, gradients, fresh outputs."""
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def counted(program: Any) -> float:
  """Floating-point operations of a device that XLA counts in a lowered or compiled program, a loop's body once."""
  analysis = program.cost_analysis()
  return float((analysis[0] if isinstance(analysis, list) else analysis)['flops'])
