"""The data pipeline alone, and beside a train step.

    python -m experiments.bench.data [--batches=200] [--rounds=15]

Steps a second of the digits U-Net, batch 128, on one batch that stays on the device and on batches of the pipeline, and
the share of the time in which the loop waits for a batch. Bound on an idle machine: <= 0.01, in memory and augmented.
Then batches a second of 32 x 32 x 3 images, 128 and 512 rows: gathered from memory, flipped, augmented as EDM does
(p = .12) by threads and by processes, and decoded from PNG records as a tfds set has them.
"""

import argparse
import dataclasses
import io
import itertools
import time
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from diffjax import losses, nets, schedules
from diffjax.data import DataSet, batches, load
from diffjax.data.augment import FEATURES
from diffjax.data.records import Records
from diffjax.train import sharding
from diffjax.train.prefetch import Prefetch
from diffjax.train.roles import Method, Phase
from diffjax.train.step import init_state, make_train_step
from experiments.bench.timing import compare

INNER = 10  # steps a round
LOADINGS = {
  'gathered from memory': {},
  'flipped': dict(flip=True),
  'augmented when asked for': dict(augment=0.12, prefetch=0),
  'augmented by 2 threads': dict(augment=0.12, prefetch=2),
  'augmented by 8 threads': dict(augment=0.12, prefetch=8),
  'augmented by 2 processes': dict(augment=0.12, workers=2),
}
DECODINGS = {name: LOADINGS[name] | dict(augment=0.0) for name in LOADINGS if name.startswith('augmented')}


@dataclasses.dataclass(frozen=True)
class Pngs:
  """A data source as tfds gives one, of more images than fit in memory; here 256 of them, again and again."""

  files: tuple[bytes, ...]

  def __len__(self):
    return 2**20

  def __getitem__(self, index):
    return {'image': np.asarray(Image.open(io.BytesIO(self.files[index % len(self.files)]))), 'label': index % 10}

  def __getitems__(self, indices):
    return [self[i] for i in indices]


def records():
  """32 x 32 x 3 waves with noise, which compress about as photographs do."""
  rng, files = np.random.RandomState(0), []
  for _ in range(256):
    wave = np.sin(np.add.outer(*rng.uniform(0, 9, (2, 32))))[..., None] + 0.1 * rng.randn(32, 32, 3)
    Image.fromarray(np.uint8(np.clip(96 * wave + 128, 0, 255))).save(file := io.BytesIO(), 'png')
    files.append(file.getvalue())
  return DataSet('records', Records(Pngs(tuple(files)), 'image', 'label', None, 255), (32, 32, 3), 10)


def rate(dataset, batch, n, **loading):
  """Batches a second, over n of them, once the first ones are there."""
  stream = batches(dataset, batch, 0, **loading)
  for _ in range(loading.get('prefetch', 2) + 2 * loading.get('workers', 0) + 1):
    next(stream)
  began = time.perf_counter()
  for _ in range(n):
    next(stream)
  taken = time.perf_counter() - began
  stream.close()
  return n / taken


def alone(n):
  """Every way of loading; per image too, since that is what decoding costs."""
  sets = (load('synthetic', shape=(32, 32, 3), n=4096, classes=10), LOADINGS), (records(), DECODINGS)
  for batch in (128, 512):
    for dataset, ways in sets:
      for name, loading in ways.items():
        name = name if ways is LOADINGS else name.replace('augmented', 'decoded')
        many = n if name in ('gathered from memory', 'flipped') else 8 * max(n // 64, 1)  # threads end in bursts of 8
        r = rate(dataset, batch, many, **loading)
        print(f'{batch} rows {name}: {r:.1f} batches a second, {1e6 / r / batch:.1f} us an image', flush=True)


NET = nets.unet(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10, augment=FEATURES)
METHOD = Method((Phase('student', losses.denoising(schedules.cosine(), NET), optax.adamw(1e-4)),))
STEP = jax.jit(make_train_step(METHOD), static_argnums=2, donate_argnums=0)


@jax.jit
def fresh(batch):
  params = NET.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, int))
  return init_state(METHOD, {'student': params}, jax.random.key(1), batch)


class Training:
  """The digits U-Net's train step on batches of 128 rows loaded this way; on one that stays on the device for None."""

  def __init__(self, digits, loading):
    rows = sharding.batch_sharding(sharding.make_mesh(1))
    self.source = batches(digits, 128, 0, **(loading or {}))
    if loading is None:
      held = sharding.place(next(self.source), rows)
      self.stream = Prefetch(itertools.repeat(held), lambda batch: batch, 0)
    else:
      self.stream = Prefetch(self.source, lambda batch: sharding.place(batch, rows), 2)
    self.state = fresh(next(self.stream))
    self.waited = self.taken = 0.0

  def __call__(self):
    """INNER steps, two of them handed out before one is waited for, as in the training loop."""
    began, under_way = time.perf_counter(), deque()
    for _ in range(INNER):
      asked = time.perf_counter()
      batch = next(self.stream)
      self.waited += time.perf_counter() - asked
      self.state, signals = STEP(self.state, batch, (0,))
      under_way.append(signals)
      if len(under_way) > 2:
        jax.block_until_ready(under_way.popleft())
    jax.block_until_ready(self.state)
    self.taken += time.perf_counter() - began

  def close(self):
    """Lets go of the stream and of the set."""
    self.stream.close()
    self.source.close()


def beside_a_step(rounds):
  """Steps a second and the share of waiting: no pipeline, in memory, augmented, in turn."""
  digits = load('digits')
  loadings = {'no pipeline': None, 'in memory': {}, 'augmented': dict(augment=0.12)}
  runs = {name: Training(digits, loading) for name, loading in loadings.items()}
  for run in runs.values():
    run()  # compiles
    run.waited = run.taken = 0.0
  for name, row in compare(runs, rounds).items():
    run = runs[name]
    run.close()
    print(f'digits U-Net, {name}: {INNER / row["wall"]:.2f} steps a second, x {1 / row["wall_ratio"]:.3f}, CPU x '
          f'{row["cpu_ratio"]:.3f}, waits {run.waited / run.taken:.4f} of the time', flush=True)  # fmt: skip


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batches', type=int, default=200)
  parser.add_argument('--rounds', type=int, default=15)
  options = parser.parse_args()
  beside_a_step(options.rounds)
  alone(options.batches)


if __name__ == '__main__':
  main()
