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
from diffjax.errors import InputError
from diffjax.labels import check_for as check_labels
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.solvers import Solver, sample, start_time, trajectory
from diffjax.statistics import Spread
from diffjax.train import sharding

__all__ = ['drawn', 'generate', 'random_labels', 'starts', 'trajectories']

LAST = 2**31 - 1  # of the samples of a seed


def starts(
  denoise: Denoise, solver: Solver, shape: tuple[int, ...], seed: int, first: int, rows: int, data: Spread | None = None
) -> tuple[Array, Array]:
  """Where samples first .. first + rows - 1 of this seed begin, (rows, *shape), and the solver's key batch.

  The law is that of `solvers.start`, at the first time of the solver's grid.

  Args:
    denoise: what is asked for predictions.
    solver: the method on its grid.
    shape: of one sample.
    seed: of all of them.
    first: the first sample.
    rows: how many.
    data: the mean and deviation of the data where they are known.
  """
  law = _law(denoise.process, solver, data)
  return _starts(denoise.process, shape, law, keys.seeded(seed), jnp.asarray(_indices(first + np.arange(rows))))


def _law(process: Process, solver: Solver, data: Spread | None) -> tuple[Array, Any, Any]:
  """The time at which x begins, and the mean and deviation of the data; 0 where they are not known."""
  mean, std = (0.0, 0.0) if data is None else (data.mean, data.std)
  t = start_time(process, solver, std)
  return jnp.asarray(t, float), jnp.asarray(mean, float), jnp.asarray(std, float)


def _starts(process: Process, shape: tuple[int, ...], law: tuple, key: Array, ks: Array) -> tuple[Array, Array]:
  begin, solver = keys.split(keys.numbered(key, ks), 2)
  return process.start(begin, jax.ShapeDtypeStruct((len(ks), *shape), jnp.float32), *law), solver


def random_labels(seed: int, ks: np.ndarray, classes: int) -> np.ndarray:
  """The class of each sample k of this seed, (len(ks),) int32: uniform, from a stream of the sample's own key."""
  key_batch = keys.fold(keys.numbered(keys.seeded(seed), jnp.asarray(_indices(ks))), 2)  # 0 and 1 are those of `starts`
  return np.asarray(jax.vmap(lambda k: jax.random.randint(k, (), 0, classes))(key_batch), np.int32)


def drawn(
  denoise: Denoise,
  solver: Solver,
  shape: tuple[int, ...],
  ks: np.ndarray,
  labels: np.ndarray | None = None,
  seed: int = 0,
  batch: int = 512,
  mesh: Any = None,
  data: Spread | None = None,
) -> Iterator[np.ndarray]:
  """The samples ks of this seed in order, (rows, *shape) float32 at a time; the last batch is padded, for one program.

  With several processes each asks for samples of its own and gets these alone. They run every batch together, so all
  must ask for equally many.

  Args:
    denoise: what is asked for predictions.
    solver: the method on its grid.
    shape: of one sample.
    seed: of all of them.
    ks: (n,) indices of samples, in any order.
    labels: (n,) conditions, or None.
    batch: samples that a program draws at a time, all processes together; rounded up to a multiple of data x fsdp.
    mesh: where to draw them, the batch over data and fsdp; the default device where None.
    data: the mean and deviation of the data where they are known, for the start (`solvers.start`).

  Raises:
    InputError: a seed or an index that its generator does not tell from another, labels of another length, or a mesh
      that gives one row to devices of several processes.
  """
  if labels is not None and np.shape(labels) != np.shape(ks):
    raise InputError(f'labels: got shape {np.shape(labels)}; allowed: one a sample, ({len(ks)},)')
  check_labels(denoise, labels, 'labels')
  ks = _indices(ks)
  mesh = sharding.make_mesh(1) if mesh is None else mesh
  where, key = sharding.batch_sharding(mesh), keys.seeded(seed)
  parts, processes = mesh.shape['data'] * mesh.shape['fsdp'], jax.process_count()
  size = -(-min(batch, len(ks) * processes) // parts) * parts
  mine = _mine(where, size)
  begin = jax.jit(_starts, static_argnums=1, out_shardings=where)
  law = _law(denoise.process, solver, data)
  waiting: deque = deque()
  for first in range(0, len(ks), len(mine)):
    lay = partial(_lay, size=size, mine=mine, where=where, part=slice(first, first + len(mine)))
    x, key_batch = begin(denoise.process, shape, law, key, lay(ks))
    end = sample(denoise, solver, x, key_batch, None if labels is None else lay(labels))
    waiting.append((jax.device_put(end, where), len(ks) - first))
    if len(waiting) > 1:  # the device draws the next while the host takes this one
      yield _host(*waiting.popleft())
  while waiting:
    yield _host(*waiting.popleft())


def _indices(ks: np.ndarray) -> np.ndarray:
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
  """This process's values as its rows of a global int32 array (size,), repeated where there are too few."""
  whole = np.zeros(size, np.int32)
  whole[mine] = np.resize(values[part], len(mine))
  return jax.make_array_from_callback((size,), where, lambda i: whole[i])


def _host(x: Array, most: int) -> np.ndarray:
  """The first rows, in order, of those of this process; those on several devices once."""
  shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
  return np.concatenate([np.asarray(shards[i]) for i in sorted(shards)])[:most]


def generate(
  denoise: Denoise,
  solver: Solver,
  shape: tuple[int, ...],
  n: int,
  labels: np.ndarray | None = None,
  seed: int = 0,
  batch: int = 512,
  mesh: Any = None,
  data: Spread | None = None,
) -> np.ndarray:
  """Samples 0 .. n - 1 of this seed, (n, *shape) float32 on every host; arguments and errors as in `drawn`."""
  if labels is not None and np.shape(labels) != (n,):
    raise InputError(f'labels: got shape {np.shape(labels)}; allowed: one a sample, ({n},)')
  each = -(-n // jax.process_count())
  ks = np.minimum(jax.process_index() * each + np.arange(each), n - 1)
  mine = drawn(denoise, solver, shape, ks, None if labels is None else labels[ks], seed, batch, mesh, data)
  whole = np.concatenate([multihost_utils.process_allgather(x[None], tiled=True) for x in mine], 1)
  return whole.reshape(-1, *shape)[:n]


def trajectories(
  denoise: Denoise,
  solver: Solver,
  shape: tuple[int, ...],
  labels: np.ndarray | None,
  n: int,
  seed: int,
  mesh: Any,
  data: Spread | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The points (rows + 1, n, *shape) that samples 0 .. n - 1 pass through, and the x0 predicted at each.

  The last entry of both is the sample itself.
  """
  everywhere = sharding.replicated(mesh)
  lay = lambda values: jax.make_array_from_callback((n,), everywhere, np.asarray(values, np.int32).__getitem__)  # noqa: E731
  check_labels(denoise, labels, 'labels')
  begin = jax.jit(_starts, static_argnums=1, out_shardings=everywhere)
  law = _law(denoise.process, solver, data)
  x, key_batch = begin(denoise.process, shape, law, keys.seeded(seed), lay(np.arange(n)))
  kept = trajectory(denoise, solver, x, key_batch, None if labels is None else lay(labels[:n]))
  end, (points, predicted) = multihost_utils.process_allgather(kept, tiled=True)
  return np.concatenate([points, end[None]]), np.concatenate([predicted, end[None]])
