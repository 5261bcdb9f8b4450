"""The figures of an evaluation: distances by differences on the host, as they were, against chunks on the device.

    python -m experiments.bench.evaluation [--images 1000 2000] [--points 4000 8000] [--rounds=3]

Near copies of images of 32 x 32 x 3, as many samples as held-out and training images: the nearest training image of all
samples and held-out images. A floor of as many points of 16 features in two sets: neighbours, energy and kernel
distance. Both ways in turn and the median of their ratio; then seconds extrapolated to 10,000 and 50,000 by the number
of pairs (both grow with it, but for the kernel distance, which is by moments). Beside them the memory of a chunk, and a
small evaluation whole: 64 samples, 64 held-out and 3000 training images.
"""

import argparse
import time
from unittest.mock import patch

import numpy as np

from diffjax import metrics
from diffjax.metrics import kernel, nearest, neighbours, pairs, transport
from experiments.bench.timing import compare

SHAPE = (32, 32, 3)
LARGE = (10_000, 50_000)


def images(rng, n):
  """Images whose neighbouring pixels are alike, as photographs' are."""
  coarse = rng.standard_normal((n, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
  return np.tanh(coarse + 0.1 * rng.standard_normal((n, *SHAPE))).astype(np.float32)


def directly(queries, train):
  """The nearest of `train`: every difference of every pair, in float64."""
  return np.concatenate([block.min(1) for _, block in pairs.squared_distances(queries, train)])


def chunked(queries, train):
  search = nearest.Nearest(queries)
  for start in range(0, len(train), search.chunk):
    search.add(train[start : start + search.chunk])
  return search.squared(lambda index: train[index])


def floor(x, y):
  return (*neighbours.neighbours(x, y), transport.energy_distance(x, y), kernel.kid(x, y))


def floor_directly(x, y):
  """`floor` with all pairs in blocks on the host."""
  never = lambda x, y: False  # noqa: E731
  with patch.object(pairs, 'far', never), patch.object(neighbours, 'far', never):
    gram = kernel.mmd(x, y, lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3)
    return (*neighbours.neighbours(x, y), transport.energy_distance(x, y), gram)


def told(name, n, programs, rounds):
  """One line: seconds, the ratio, and both ways extrapolated by the square of the size."""
  table = compare(programs, rounds)
  old, new = table['direct'], table['chunked']
  further = ', '.join(
    f'{size}: {old["wall"] * (size / n) ** 2:.0f} and {new["wall"] * (size / n) ** 2:.0f} s' for size in LARGE
  )
  print(f'{name}, {n}: {old["wall"]:.2f} s by differences, {new["wall"]:.2f} s in chunks, '
        f'x {1 / new["wall_ratio"]:.1f} (extrapolated to {further})', flush=True)  # fmt: skip


def small():
  """Seconds of all figures of a small evaluation, compiling included."""
  rng = np.random.default_rng(2)
  train, held, samples = images(rng, 3000), images(rng, 64), images(rng, 64)
  began = time.perf_counter()
  features, classify = metrics.features_for('images', train)
  fitted = time.perf_counter() - began
  metrics.evaluate(samples, None, (held, None), (train, None), features, classify=classify)
  print(f'64 samples, 64 held-out, 3000 training images: {time.perf_counter() - began:.1f} s of figures, '
        f'{fitted:.1f} s of them the principal components', flush=True)  # fmt: skip


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, nargs='*', default=[1000, 2000])
  parser.add_argument('--points', type=int, nargs='*', default=[4000, 8000])
  parser.add_argument('--rounds', type=int, default=3)
  options = parser.parse_args()
  small()
  rng = np.random.default_rng(0)
  d = int(np.prod(SHAPE))
  rows = nearest.chunk_rows(d)
  print(f'a chunk: {rows} images, {rows * d * 4 / 2**20:.0f} MB, and {nearest.QUERIES} x {rows} distances, '
        f'{nearest.QUERIES * rows * 4 / 2**20:.0f} MB, whatever the size of the sets', flush=True)  # fmt: skip
  for n in options.images:
    train, held, samples = (images(rng, n).reshape(n, -1) for _ in range(3))
    queries = np.concatenate([samples, held])
    np.testing.assert_allclose(chunked(queries[:64], train), directly(queries[:64], train), rtol=1e-9)
    near = {'direct': lambda q=queries, t=train: directly(q, t), 'chunked': lambda q=queries, t=train: chunked(q, t)}
    told('near copies', n, near, options.rounds)
  for n in options.points:
    x, y = rng.standard_normal((2, n, 16))
    np.testing.assert_allclose(floor(x, y), floor_directly(x, y), rtol=1e-9, atol=1e-12)
    floors = {'direct': lambda x=x, y=y: floor_directly(x, y), 'chunked': lambda x=x, y=y: floor(x, y)}
    told('a floor', n, floors, options.rounds)


if __name__ == '__main__':
  main()
