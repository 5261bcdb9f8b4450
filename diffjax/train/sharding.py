"""Where arrays live: a mesh of the axes data, fsdp and model, and a rule (path, shape) -> sharding for every leaf.

The batch is split over data and fsdp together; big leaves are split over fsdp; kernels over model, by the rules of
their network (`diffjax.train.rules`), or by their output channels where no network names them. Optimiser states and
averages have the shapes of the parameters, hence their shardings.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffjax.errors import InputError

__all__ = ['make_mesh', 'state_shardings', 'batch_sharding', 'replicated', 'check_batch', 'place']

AXES = ('data', 'fsdp', 'model')
Axes = Callable[[str, tuple[int, ...]], tuple[str | None, ...]]


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1) -> Mesh:
  """The mesh of this many devices an axis; one axis may be -1 and takes what the others leave.

  Raises:
    InputError: more devices asked than there are, or a number that does not divide them; with several processes a
      mesh that leaves devices out, or does not split the batch between them.
  """
  sizes, count = dict(data=data, fsdp=fsdp, model=model), jax.device_count()
  asked = ', '.join(f'{axis}={size}' for axis, size in sizes.items())
  bad = [axis for axis, size in sizes.items() if size < 1 and size != -1]
  if bad or list(sizes.values()).count(-1) > 1:
    raise InputError(f'mesh: got {asked}; allowed: positive numbers, one of them -1 to fill')
  known = math.prod(size for size in sizes.values() if size != -1)
  if known > count:
    raise InputError(f'mesh: got {asked}, {known} devices; allowed: at most the {count} there are')
  if count % known:
    raise InputError(f'mesh: got {asked}; allowed: a product that divides the {count} devices')
  shape = tuple(count // known if size == -1 else size for size in sizes.values())
  total = math.prod(shape)
  if total < count and jax.process_count() > 1:
    raise InputError(f'mesh: got {asked}, {total} devices; allowed with {jax.process_count()} processes: all {count}')
  if shape[0] * shape[1] % jax.process_count():  # where model alone spans them, processes would feed different rows
    raise InputError(f'mesh: got {asked}; allowed with {jax.process_count()} processes: data x fsdp a multiple of it, '
                     'each reads rows of its own')  # fmt: skip
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.devices()[:total])


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def check_batch(mesh: Mesh, rows: int, accumulate: int = 1) -> None:
  """Raises InputError where a batch of so many rows does not divide over the mesh and the microbatches."""
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if rows % (parts * accumulate):
    split = f'data x fsdp = {parts}' + (f' times accumulate = {accumulate}' if accumulate > 1 else '')
    raise InputError(f'batch: got {rows} rows; allowed: a multiple of {split}')


def by_output(path: str, shape: tuple[int, ...]) -> tuple[str | None, ...]:
  """The default rule of the model axis: the last axis, the output channels, of leaves of two axes or more."""
  return (*(None,) * (len(shape) - 1), 'model') if len(shape) > 1 else (None,) * len(shape)


def state_shardings(mesh: Mesh, shapes: Any, axes: Axes | None = None, min_fsdp_size: int = 2**14) -> Any:
  """A sharding for every leaf of a state given by its shapes (arrays or `jax.eval_shape`'s).

  Args:
    mesh: the devices.
    shapes: of the state, arrays or `jax.eval_shape`'s.
    axes: (path, shape) -> for each axis the mesh axis it is split over, None, or 'layers', which fsdp takes last; the
      path is '/'-joined names such as 'roles/student/Dense_0/kernel'. `by_output` by default. An axis that the mesh
      does not divide stays whole.
    min_fsdp_size: leaves of fewer elements are not split over fsdp: the messages would cost more than the memory.
  """

  def rule(path: tuple, leaf: Any) -> NamedSharding:
    shape, where = tuple(leaf.shape), jax.tree_util.keystr(path, simple=True, separator='/')
    asked = (axes or by_output)(where, shape)
    spec: list[str | None] = [
      axis if axis in AXES and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
      for axis, size in zip(asked, shape, strict=True)
    ]
    free = [i for i, size in enumerate(shape) if spec[i] is None and size % mesh.shape['fsdp'] == 0]
    if mesh.shape['fsdp'] > 1 and 'fsdp' not in spec and free and math.prod(shape) >= min_fsdp_size:
      spec[max(free, key=lambda i: (asked[i] != 'layers', shape[i]))] = 'fsdp'
    return NamedSharding(mesh, PartitionSpec(*spec) if any(spec) else PartitionSpec())

  return jax.tree_util.tree_map_with_path(rule, shapes)


def place(batch: Any, sharding: NamedSharding) -> Any:
  """The rows of this process as global arrays: process h holds the h-th block of every batch."""
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
