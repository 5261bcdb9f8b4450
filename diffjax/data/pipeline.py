"""Endless batches whose position is the step. The one module that calls grain."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from diffjax.data.augment import draw, label, move, uniforms
from diffjax.data.dataset import DataSet
from diffjax.data.seeds import stream
from diffjax.errors import InputError

__all__ = ['batches', 'permutation']

IN_MEMORY = 2**30  # bytes: sets below are loaded once; a gather there costs .04 ms a batch, reading records 3-6 ms


class Stream(Iterator[dict[str, np.ndarray]], Protocol):
  """Batches without end, until it is closed."""

  def close(self) -> None: ...


def batches(
  dataset: DataSet,
  batch: int,
  seed: int,
  *,
  shard: tuple[int, int] = (0, 1),
  start: int = 0,
  workers: int = 0,
  prefetch: int = 2,
  flip: bool = False,
  augment: float = 0.0,
) -> 'Stream':
  """Batches start, start + 1, ...: {'x': (batch / hosts, ...), 'cond': (batch / hosts,) int32, ...}, without end.

  They hold what `dataset.keys` says.

  Row r of global batch i is example pi_e[p mod n], where p = i batch + r, e = p div n is the epoch and pi_e a random
  permutation that depends on (seed, e) only. So every example comes once an epoch, a batch may straddle epochs, and
  batch i is a pure function of (seed, i): nothing but the step needs saving, and a start at k replays nothing.

  `shard` = (host, hosts) gives host h the rows h b .. (h+1) b - 1, b = batch / hosts, in the order in which
  `jax.make_array_from_process_local_data` lays out a batch sharded over processes.

  With `flip` an image is mirrored left to right with probability 1/2; with `augment`, a probability, it is moved as
  `diffjax.data.augment` says and the batch has 'augment' (batch / hosts, 9), which the network must be told. An image
  that it is paired with is mirrored with it.

  Sets up to about 1 GB are read once into one array, larger ones record by record. Where there is more to do than to
  gather from memory, it is done ahead by `prefetch` threads in each of `workers` processes (none: in this one); close()
  the iterator to end them early. Neither number changes a batch.

  Raises:
    InputError: batch not a positive multiple of hosts, host outside 0..hosts-1, a negative number, augment above 1, or
      flips of what is no image, or augment of pairs.
  """
  host, hosts = shard
  if hosts < 1 or not 0 <= host < hosts:
    raise InputError(f'shard is {shard}, must be (host, hosts) with 0 <= host < hosts')
  if batch < 1 or batch % hosts:
    raise InputError(f'data.batch is {batch}, must be a positive multiple of the number of hosts, {hosts}')
  for field, value in dict(seed=seed, start=start, workers=workers, prefetch=prefetch).items():
    if value < 0:
      raise InputError(f'{field} is {value}, must not be negative')
  if not 0 <= augment <= 1:
    raise InputError(f'augment is {augment}, must be a probability, 0 to 1')
  if (flip or augment) and len(dataset.shape) != 3:
    raise InputError(f'flip={flip}, augment={augment} need images (H, W, C), {dataset.name} has {dataset.shape}')
  if augment and dataset.others or flip and any(len(shape) != 3 for shape in dataset.others.values()):
    others = ', '.join(f'{key} {shape}' for key, shape in dataset.others.items())
    raise InputError(f'flip={flip}, augment={augment} would move x alone; {dataset.name} pairs it with {others}')
  import grain
  from absl import flags

  small = dataset.nbytes <= IN_MEMORY
  source = Batches(dataset.loaded() if small else dataset, int(batch), int(seed), host, hosts, flip, float(augment))
  busy = not small or augment > 0
  threads = prefetch if busy else 0  # a gather from memory is faster than handing it to a thread
  steps = grain.MapDataset.source(source)[int(start) :]
  flow = steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
  if workers and busy:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which nobody has parsed in a notebook
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(prefetch, 1))
    flow = flow.mp_prefetch(options)
  return iter(flow)


@dataclasses.dataclass(frozen=True)
class Batches:
  """A grain source whose element i is batch i."""

  dataset: DataSet
  batch: int
  seed: int
  host: int
  hosts: int
  flip: bool = False
  augment: float = 0.0

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    rows = self.batch // self.hosts
    first = index * self.batch + self.host * rows
    batch = self.dataset.take(stretch(self.seed, first, first + rows, self.dataset.size))
    if not (self.flip or self.augment):
      return batch
    u = uniforms(self.seed, index, self.host * rows, (self.host + 1) * rows)
    if self.flip:
      mirrored = u[:, -1] < 0.5
      for key in ('x', *self.dataset.others):
        batch[key][mirrored] = batch[key][mirrored, :, ::-1]
    if self.augment:
      moves = draw(u, self.augment)
      batch |= {'x': move(batch['x'], moves), 'augment': label(moves)}
    return batch


def stretch(seed: int, start: int, stop: int, n: int) -> np.ndarray:
  """The examples at positions start..stop-1 of the endless concatenation of the epochs' permutations."""
  parts = []
  while start < stop:
    epoch, offset = divmod(start, n)
    parts.append(permutation(seed, epoch, n)[offset : offset + stop - start])
    start += len(parts[-1])
  return parts[0] if len(parts) == 1 else np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
  """A random permutation of 0..n-1, a function of (seed, epoch)."""
  order = stream(seed, epoch).permutation(n)
  order.flags.writeable = False
  return order
