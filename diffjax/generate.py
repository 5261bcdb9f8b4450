"""Many samples in batches of one size, over a mesh, so that sample k depends on (seed, k) alone."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys as draws
from diffjax.prediction import Denoise
from diffjax.solvers import Solver, path, sample
from diffjax.train import sharding

__all__ = ['generate', 'starts', 'trajectories']


def starts(denoise: Denoise, shape: tuple[int, ...], seed: int, first: int, rows: int) -> tuple[Array, Array]:
  """The noise (rows, *shape) at t_max and the solver's key batch of samples first .. first + rows - 1 of this seed."""
  prior, solver = draws.split(draws.per_sample(jax.random.key(seed), rows, first), 2)
  return denoise.process.prior(prior, jax.ShapeDtypeStruct((rows, *shape), jnp.float32)), solver


def generate(
  denoise: Denoise,
  solver: Solver,
  shape: tuple[int, ...],
  n: int,
  labels: np.ndarray | None = None,
  seed: int = 0,
  batch: int = 512,
  mesh: Any = None,
  progress: Callable[[Iterator], Iterator] = iter,
) -> np.ndarray:
  """n samples (n, *shape) float32 on the host; the last batch is padded, so that one program serves all.

  Args:
    labels: (n,) conditions, or None.
    batch: samples a program draws at a time, all devices together.
    mesh: where to draw them, the batch over data and fsdp; the default device where None.
    progress: wraps the iterator over batches.

  Raises:
    ValueError: labels of another length, or a batch that does not divide over the mesh.
  """
  if labels is not None and np.shape(labels) != (n,):
    raise ValueError(f'labels: got shape {np.shape(labels)}; allowed: one a sample, ({n},)')
  parts = 1 if mesh is None else mesh.shape['data'] * mesh.shape['fsdp']
  batch = min(batch, -(-n // parts) * parts)
  if batch % parts:
    raise ValueError(f'sampling.batch: got {batch}; allowed: a multiple of data x fsdp = {parts}')
  done = []
  for first in progress(iter(range(0, n, batch))):
    x, keys = starts(denoise, shape, seed, first, batch)
    cond = None if labels is None else jnp.asarray(np.resize(labels[first : first + batch], batch), jnp.int32)
    if mesh is not None:
      x, keys, cond = jax.device_put((x, keys, cond), sharding.batch_sharding(mesh))
    done.append(np.asarray(sample(denoise, solver, x, keys, cond))[: n - first])
  return np.concatenate(done)


def trajectories(
  denoise: Denoise, solver: Solver, shape: tuple[int, ...], labels: np.ndarray | None, n: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """The points (rows + 1, n, *shape) that samples 0 .. n - 1 pass through, and the x0 predicted at each.

  The last entry of both is the sample itself.
  """
  x, keys = starts(denoise, shape, seed, 0, n)
  cond = None if labels is None else jnp.asarray(labels[:n], jnp.int32)
  end, (points, predicted) = path(denoise, solver, x, keys, cond)
  end = np.asarray(end)[None]
  return np.concatenate([np.asarray(points), end]), np.concatenate([np.asarray(predicted), end])
