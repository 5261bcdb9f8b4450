"""Sums and counts over all pairs of two large sets of features: tiles of matrix products in float64 on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ['counts', 'total_distance']

TILE = 2048  # rows and columns of a tile, 32 MB


def total_distance(x: np.ndarray, y: np.ndarray) -> float:
  """The sum of all distances between two sets, sum_ij |x_i - y_j| for x (n,d) and y (m,d)."""
  centre = x.mean(0)
  return float(sum(total for *_, total in tiled(_roots, (x - centre,), (y - centre,))))


def counts(x: np.ndarray, y: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
  """Counts what lies in whose ball, for D = |x_i - y_j|^2 and squared radii of x (n,) and y (m,).

  Distances that differ by no more than rounding, that of products of points about their centre, are equal.

  Returns:
    inside (m,): D <= first_i for some i; reached (n,): D <= second_j for some j; covered (n,): D < first_i for some j;
    within (n,): for how many j.
  """
  inside = np.zeros(len(y), bool)
  reached, within = np.zeros(len(x), bool), np.zeros(len(x), int)
  for row, column, (some, some_rows, many) in tiled(_balls, (x, first), (y, second)):
    inside[column] |= some[: len(inside[column])]
    reached[row] |= some_rows[: len(reached[row])]
    within[row] += many[: len(within[row])]
  return inside, reached, within > 0, within


def tiled(program: Callable[..., Any], x: tuple, y: tuple) -> list[tuple[slice, slice, Any]]:
  """Runs program(*rows of the arrays x, *rows of the arrays y) on all tiles, in float64.

  Every tile has one shape, a power of two up to TILE, the last ones filled up with NaN: sets of any size share a
  program. A pair of rows of which one is NaN must count as nothing.

  Returns:
    (rows of x, rows of y, the program's result on the host), a tile each.
  """
  with jax.enable_x64(True):
    columns = list(_parts(y))
    results = [(i, j, program(*rows, *others)) for i, rows in _parts(x) for j, others in columns]
    return [(i, j, jax.device_get(result)) for i, j, result in results]


def _parts(arrays: tuple) -> Iterator[tuple[slice, list[Array]]]:
  n = len(arrays[0])
  size = min(TILE, 1 << (n - 1).bit_length())
  for start in range(0, n, size):
    part = slice(start, min(start + size, n))
    filled = [np.full((size, *np.shape(a)[1:]), np.nan) for a in arrays]
    for whole, a in zip(filled, arrays, strict=True):
      whole[: part.stop - start] = a[part]
    yield part, [jnp.asarray(whole) for whole in filled]


def _squared(x: Array, y: Array) -> tuple[Array, Array]:
  """|x_i - y_j|^2 of a tile by one matrix product, [-2 x, |x|^2, 1] [y, 1, |y|^2]', and the rounding error it may have.

  That is at most (d + 4) 2^-52 (max |x|^2 + max |y|^2). What is below it is 0: equal points are at distance 0.
  """
  n, m = jnp.sum(x * x, 1, keepdims=True), jnp.sum(y * y, 1, keepdims=True)
  one = jnp.ones_like
  left, right = jnp.concatenate([-2 * x, n, one(n)], 1), jnp.concatenate([y, one(m), m], 1)
  squared = jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)
  error = (x.shape[1] + 4) * 2.0**-52 * (jnp.nanmax(n) + jnp.nanmax(m))
  return jnp.where(squared <= error, 0.0, squared), error


@jax.jit
def _roots(x: Array, y: Array) -> Array:
  squared, _ = _squared(x, y)
  return jnp.sum(jnp.sqrt(jnp.where(squared > 0, squared, 0.0)))


@jax.jit
def _balls(x: Array, first: Array, y: Array, second: Array) -> tuple[Array, Array, Array]:
  squared, error = _squared(x, y)
  inside = (squared <= first[:, None] + error).any(0)
  reached = (squared <= second + error).any(1)
  return inside, reached, (squared < first[:, None] - error).sum(1)
