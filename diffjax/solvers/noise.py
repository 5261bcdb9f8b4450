"""Where the z of a stochastic solver comes from: an argument of `sample`, (key_batch, row, like) -> z like `like`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys
from diffjax.contracts import Data, KeyBatch
from diffjax.noise_levels import at
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['Noise', 'independent', 'fixed', 'brownian']

Noise = Callable[[Array, Any, Any], Any]

DEPTH = 14  # halvings of a Brownian path: 1 / 16384 of the range of lam


def independent(key_batch: KeyBatch, row: Any, like: Data) -> Any:
  """A fresh standard normal draw a row and sample, from stream `row.stream`; a retried or padded row draws the same."""
  return keys.normal(keys.fold(key_batch, row.stream), like)


def fixed(z: Any) -> 'Fixed':
  """The draws themselves: row i of the solver takes z[i]; z (rows, B, ...), like x with the rows in front."""
  return Fixed(jax.tree.map(jnp.asarray, z))


class Fixed(PyTree):
  """Made by `fixed`."""

  z: Any

  def __call__(self, key_batch: KeyBatch, row: Any, like: Data) -> Any:
    return jax.tree.map(lambda z, x: z[row.stream].astype(x.dtype), self.z, like)


def brownian(solver: Any, process: Process) -> 'Brownian':
  """The draws of one Brownian path W a sample over lam, so that other numbers of steps give the same picture.

  A row that steps from u to v, lam rescaled to [0, 1], takes z = (W(v) - W(u)) / sqrt(v - u): independent standard
  normal rows for any one solver, and the same path for all grids and solvers. W is bisected from per-sample keys
  (a Brownian bridge, `DEPTH` halvings) and nothing is stored. Rows that stay at one lam, or leave the finite ones,
  draw independently.

  Args:
    solver: its rows say which steps there are; a row steps to the next lower time of the table.
    process: the forward process.
  """
  ts = np.asarray(solver.rows.t, np.float64)
  after = [next((s for s in ts[i + 1 :] if s < t), 0.0) for i, t in enumerate(ts)]
  first, last = at(process, [0.999 * float(process.t_max), float(process.t_min)])[2]  # lam is finite there
  u = np.clip((at(process, np.stack([ts, after], 1))[2] - first) / (last - first), 0, 1)
  return Brownian(jnp.asarray(u, float))


class Brownian(PyTree):
  """Made by `brownian`: the ends (rows, 2) of every row on [0, 1]."""

  ends: Array

  def __call__(self, key_batch: KeyBatch, row: Any, like: Data) -> Any:
    u, v = self.ends[row.stream]
    path, alone = keys.split(key_batch, 2)
    rise = jax.tree.map(jnp.subtract, _point(path, v, like), _point(path, u, like))
    fresh = independent(alone, row, like)
    scale = jax.lax.rsqrt(jnp.where(v > u, v - u, 1.0))
    return jax.tree.map(lambda w, z: jnp.where(v > u, w * scale.astype(w.dtype), z), rise, fresh)


def _point(key_batch: KeyBatch, u: Array, like: Data) -> Any:
  """W(u) of the path of each key, W(0) = 0: midpoints drawn given both ends, halving by halving."""

  def halve(level: Array, carry: tuple) -> tuple:
    left, node, low, high = carry
    width = 0.5**level  # of [left, left + width]
    z = keys.normal(keys.fold(key_batch, node), like)
    middle = jax.tree.map(lambda a, b, z: (a + b) / 2 + (jnp.sqrt(width) / 2).astype(z.dtype) * z, low, high, z)
    right = u >= left + width / 2
    low = jax.tree.map(lambda a, m: jnp.where(right, m, a), low, middle)
    high = jax.tree.map(lambda b, m: jnp.where(right, b, m), high, middle)
    return left + jnp.where(right, width / 2, 0.0), 2 * node + right, low, high

  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
  carry = (jnp.zeros_like(u), jnp.asarray(1), zero, keys.normal(keys.fold(key_batch, 0), like))
  left, node, low, high = jax.lax.fori_loop(0, DEPTH, halve, carry)
  width = 0.5**DEPTH
  share = (u - left) / width
  z = keys.normal(keys.fold(key_batch, node), like)
  spread = jnp.sqrt(jnp.maximum(share * (1 - share), 0.0) * width)
  mix = lambda a, b, z: (1 - share).astype(a.dtype) * a + share.astype(a.dtype) * b + spread.astype(a.dtype) * z  # noqa: E731
  return jax.tree.map(mix, low, high, z)
