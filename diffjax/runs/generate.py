"""Many samples in batches of one size, over a mesh and its processes, so that sample k depends on (seed, k) alone."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from diffjax import keys
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.methods import Generator
from diffjax.train import sharding

__all__ = ['drawn', 'generate', 'key_batch', 'random_labels', 'trajectories']

LAST = 2**31 - 1  # of the samples of a seed


def key_batch(seed: int, ks: Any) -> Array:
  """The keys of the samples ks of this seed, (len(ks),), which a generator is called with."""
  return keys.numbered(keys.seeded(seed), jnp.asarray(_indices(ks)))


def random_labels(seed: int, ks: np.ndarray, classes: int) -> np.ndarray:
  """The class of each sample k of this seed, (len(ks),) int32: uniform, from a stream of the sample's own key."""
  own = keys.fold(key_batch(seed, ks), 2)  # 0 and 1 are the start's and the solver's
  return np.asarray(jax.vmap(lambda k: jax.random.randint(k, (), 0, classes))(own), np.int32)


def drawn(
  generator: Generator,
  ks: np.ndarray,
  cond: Cond = None,
  *,
  seed: int = 0,
  batch: int = 512,
  mesh: Any = None,
) -> Iterator[Any]:
  """The samples ks of this seed in order, (rows, ...) float32 at a time; the last batch is padded, for one program.

  With several processes each asks for samples of its own and gets these alone. They run every batch together, so all
  must ask for equally many.

  Args:
    generator: what draws.
    ks: (n,) indices of samples, in any order.
    cond: their conditions, labels (n,) or a pytree of arrays (n, ...); or None.
    seed: of all of them.
    batch: samples that a program draws at a time, all processes together; rounded up to a multiple of data x fsdp.
    mesh: where to draw them, the batch over data and fsdp; the default device where None.

  Raises:
    InputError: a seed or an index that its generator does not tell from another, conditions of another number, or a
      mesh that gives one row to devices of several processes.
  """
  check_rows(cond, len(ks))
  generator.check_cond(cond, 'labels')
  ks = _indices(ks)
  mesh = sharding.make_mesh(1) if mesh is None else mesh
  where, key = sharding.batch_sharding(mesh), keys.seeded(seed)
  parts, processes = mesh.shape['data'] * mesh.shape['fsdp'], jax.process_count()
  size = -(-min(batch, len(ks) * processes) // parts) * parts
  mine = _mine(where, size)
  waiting: deque = deque()
  for first in range(0, len(ks), len(mine)):
    lay = partial(_lay, size=size, mine=mine, where=where, part=slice(first, first + len(mine)))
    waiting.append((_draw(generator, key, lay(ks), jax.tree.map(lay, cond), where), len(ks) - first))
    if len(waiting) > 1:  # the device draws the next while the host takes this one
      yield _host(*waiting.popleft())
  while waiting:
    yield _host(*waiting.popleft())


@partial(jax.jit, static_argnums=4)
def _draw(generator: Generator, key: Array, ks: Array, cond: Cond, where: Any) -> Any:
  own = jax.lax.with_sharding_constraint(keys.numbered(key, ks), where)
  return jax.lax.with_sharding_constraint(generator(own, cond), where)


@partial(jax.jit, static_argnums=4)
def _path(generator: Any, key: Array, ks: Array, cond: Cond, where: Any) -> Any:
  return jax.lax.with_sharding_constraint(generator.path(keys.numbered(key, ks), cond), where)


def check_rows(cond: Cond, n: int, field: str = 'labels') -> None:
  """Raises InputError where conditions are not one a sample."""
  for leaf in jax.tree.leaves(cond):
    if np.shape(leaf)[:1] != (n,):
      raise InputError(f'{field}: got shape {np.shape(leaf)}; allowed: one a sample, ({n},)')


def _indices(ks: Any) -> np.ndarray:
  """Indices of samples as int32, which keys are folded with."""
  wrong = np.asarray(ks)[(np.asarray(ks) < 0) | (np.asarray(ks) > LAST)]
  if len(wrong):
    raise InputError(f'ks: got {wrong[0]}; allowed: whole numbers from 0 to {LAST}')
  return np.asarray(ks, np.int32)


def _mine(where: Any, size: int) -> np.ndarray:
  """The rows, of `size`, that lie on the devices of this process."""
  rows = np.arange(size)
  mine = np.unique(np.concatenate([rows[i] for (i,) in where.addressable_devices_indices_map((size,)).values()]))
  if len(mine) * jax.process_count() != size:
    raise InputError(f'mesh: got {len(mine)} of {size} rows in each of {jax.process_count()} processes; allowed: as '
                     'many rows in each, and none in two: model at most the devices of one')  # fmt: skip
  return mine


def _lay(values: np.ndarray, size: int, mine: np.ndarray, where: Any, part: slice) -> Array:
  """This process's values as its rows of a global array (size, ...), repeated where there are too few."""
  some = np.asarray(values)[part]
  whole = np.zeros((size, *some.shape[1:]), some.dtype)
  whole[mine] = some[np.arange(len(mine)) % len(some)]
  return jax.make_array_from_callback(whole.shape, where, lambda i: whole[i])


def _host(x: Any, most: int) -> Any:
  """The first rows, in order, of those of this process; those on several devices once."""

  def one(leaf: Array) -> np.ndarray:
    shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(shards[i]) for i in sorted(shards)])[:most]

  return jax.tree.map(one, x)


def generate(
  generator: Generator, n: int, cond: Cond = None, *, seed: int = 0, batch: int = 512, mesh: Any = None
) -> Any:
  """Samples 0 .. n - 1 of this seed, (n, ...) float32 on every host; arguments and errors as in `drawn`."""
  check_rows(cond, n)
  each = -(-n // jax.process_count())
  ks = np.minimum(jax.process_index() * each + np.arange(each), n - 1)
  mine = list(drawn(generator, ks, jax.tree.map(lambda c: np.asarray(c)[ks], cond), seed=seed, batch=batch, mesh=mesh))

  def join(*parts: np.ndarray) -> np.ndarray:
    whole = np.concatenate([multihost_utils.process_allgather(x[None], tiled=True) for x in parts], 1)
    return whole.reshape(-1, *whole.shape[2:])[:n]

  return jax.tree.map(join, *mine)


def trajectories(generator: Any, cond: Cond, n: int, seed: int, mesh: Any) -> tuple[Any, Any]:
  """The points (rows + 1, n, ...) that samples 0 .. n - 1 pass through, and the x0 predicted at each.

  The last entry of both is the sample itself.
  """
  everywhere = sharding.replicated(mesh)

  def lay(values: Any) -> Array:
    return jax.make_array_from_callback(np.shape(values), everywhere, np.asarray(values).__getitem__)

  generator.check_cond(cond, 'labels')
  ks = lay(np.arange(n, dtype=np.int32))
  kept = _path(generator, keys.seeded(seed), ks, jax.tree.map(lambda c: lay(c[:n]), cond), everywhere)
  end, (points, predicted) = multihost_utils.process_allgather(kept, tiled=True)
  return np.concatenate([points, end[None]]), np.concatenate([predicted, end[None]])
