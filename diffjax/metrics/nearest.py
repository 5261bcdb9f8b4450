"""The nearest of very many candidates: found by matrix products on the device, measured by differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.errors import InputError

__all__ = ['Nearest']

NUMBERS = 2**24  # of a chunk of candidates, 64 MB in float32
QUERIES = 1024  # rows of a block of queries, at most
KEPT = 16  # candidates that a query keeps
SCANNED = 2**22  # numbers that are compared by differences at a time


class Nearest:
  """Squared distances from queries (n,d) to their k-th nearest candidate, which come in chunks.

  A chunk's |y|^2 - 2 x.y is one float32 matrix product a block of queries, of which each keeps the KEPT least. The
  product cannot tell near copies apart: its error is at most e = (d + 16) 2^-24 (|x| + max |y|)^2 about the queries'
  mean. So all those kept that are within 2 e of the k-th are measured by differences in float64, and a query which may
  not have kept its k-th nearest (all KEPT are within 2 e) is compared with every candidate.
  Memory: the queries, one chunk, and QUERIES x chunk distances.

      search = Nearest(samples)
      for images in chunks: search.add(images)
      squared = search.squared(fetch)
  """

  def __init__(self, queries: np.ndarray, k: int = 1, among: bool = False):
    """Begins a search.

    Args:
      queries: (n,d).
      k: which of the nearest.
      among: the candidates are the queries themselves, in order, and none is its own neighbour.
    """
    self.queries, self.k, self.among = queries, k, among
    self.kept = max(KEPT, 2 * k)
    self.centre = np.asarray(queries, np.float64).mean(0).astype(np.float32)
    self.chunk = chunk_rows(queries.shape[1])
    self.block = min(QUERIES, _power(len(queries)))
    self.seen, self.largest = 0, 0.0
    n = -(-len(queries) // self.block)
    self.best = [jnp.full((self.block, self.kept), jnp.inf, jnp.float32) for _ in range(n)]
    self.index = [jnp.full((self.block, self.kept), -1, jnp.int32) for _ in range(n)]

  def add(self, candidates: np.ndarray) -> None:
    """The next candidates (b,d), at most `chunk` of them."""
    size = min(self.chunk, _power(len(candidates)))
    y, squared = _laid(_filled(candidates, size), self.centre, len(candidates))
    self.largest = max(self.largest, float(jnp.max(jnp.where(jnp.isfinite(squared), squared, 0))))
    for i in range(len(self.best)):
      rows = _filled(self.queries[i * self.block : (i + 1) * self.block], self.block)
      own = i * self.block - self.seen if self.among else size
      self.best[i], self.index[i] = _closer(rows, self.centre, y, squared, self.best[i], self.index[i], self.seen, own)
    self.seen += len(candidates)

  def squared(self, fetch: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The squared distances (n,) float64, once all candidates were added.

    Args:
      fetch: indices, rising, in the order in which they came -> those candidates (b,d).

    Raises:
      InputError: fewer than k candidates.
    """
    n, d = self.queries.shape
    if self.seen - self.among < self.k:
      raise InputError(f'k: got {self.k} nearest of {self.seen - self.among} candidates; allowed: at most as many')
    best = np.concatenate([np.asarray(b) for b in self.best])[:n].astype(np.float64)
    index = np.concatenate([np.asarray(i) for i in self.index])[:n]
    lengths = np.concatenate(
      [np.linalg.norm(np.subtract(x, self.centre, dtype=np.float64), axis=1) for _, x in self._parts()]
    )
    error = (d + 16) * 2.0**-24 * (lengths + np.sqrt(self.largest)) ** 2
    near = np.isfinite(best) & (best <= (best[:, self.k - 1] + 2 * error)[:, None])
    result = np.partition(self._measured(near, index, fetch), self.k - 1, axis=1)[:, self.k - 1]
    unsure = np.flatnonzero(near[:, -1] & (result > 0))
    if len(unsure):
      result[unsure] = self._scanned(unsure, fetch)
    return result

  def _parts(self):
    for start in range(0, len(self.queries), self.block):
      yield start, self.queries[start : start + self.block]

  def _measured(self, near: np.ndarray, index: np.ndarray, fetch: Callable) -> np.ndarray:
    """The squared distances (n, kept) by differences where `near`, infinity elsewhere."""
    distances = np.full(near.shape, np.inf)
    rows, places = np.nonzero(near)
    wanted = index[rows, places]
    order = np.argsort(wanted, kind='stable')
    step = max(1, SCANNED // self.queries.shape[1])
    for start in range(0, len(order), step):
      part = order[start : start + step]
      which, back = np.unique(wanted[part], return_inverse=True)
      gaps = np.subtract(fetch(which)[back], self.queries[rows[part]], dtype=np.float64)
      distances[rows[part], places[part]] = np.einsum('ij,ij->i', gaps, gaps)
    return distances

  def _scanned(self, rows: np.ndarray, fetch: Callable) -> np.ndarray:
    """The k-th least of the squared distances of these queries to all candidates, by differences."""
    from scipy.spatial.distance import cdist

    x, least = np.asarray(self.queries[rows], np.float64), np.full((len(rows), self.k), np.inf)
    step = max(1, min(self.chunk, SCANNED // len(rows)))
    for start in range(0, self.seen, step):
      part = np.arange(start, min(start + step, self.seen))
      block = cdist(x, np.asarray(fetch(part), np.float64), 'sqeuclidean')
      if self.among:
        block[rows[:, None] == part] = np.inf
      least = np.partition(np.concatenate([least, block], 1), self.k - 1, axis=1)[:, : self.k]
    return least[:, self.k - 1]


def chunk_rows(numbers: int) -> int:
  """How many candidates of so many numbers make a chunk: a power of two, 64 to 2048."""
  return int(np.clip(1 << (NUMBERS // numbers).bit_length() >> 1, 64, 2048))


def _power(n: int) -> int:
  """The least power of two that is at least n."""
  return 1 << max(n - 1, 0).bit_length()


def _filled(x: np.ndarray, size: int) -> np.ndarray:
  """The rows in float32, filled up with zeros to one of few sizes, so that sets of any size share a program."""
  whole = np.zeros((size, x.shape[1]), np.float32)
  whole[: len(x)] = x
  return whole


@jax.jit
def _laid(y: Array, centre: Array, n: Array) -> tuple[Array, Array]:
  """The candidates about the centre and their squared lengths, infinity for rows that are none."""
  y = y - centre
  return y, jnp.where(jnp.arange(len(y)) < n, jnp.sum(y * y, 1), jnp.inf)


@partial(jax.jit, donate_argnums=(4, 5))
def _closer(
  x: Array, centre: Array, y: Array, squared: Array, best: Array, index: Array, first: Array, own: Array
) -> tuple[Array, Array]:
  """The least |y|^2 - 2 x.y with their places, of those so far and of this chunk; row i leaves out column i + own."""
  values = squared - 2 * jnp.matmul(x - centre, y.T, precision=jax.lax.Precision.HIGHEST)
  columns = jnp.arange(len(y))
  values = jnp.where(columns == jnp.arange(len(x))[:, None] + own, jnp.inf, values)
  some, places = jax.lax.top_k(-values, min(best.shape[1], len(y)))
  both = jnp.concatenate([best, -some], 1)
  all_places = jnp.concatenate([index, places + first], 1)
  least, which = jax.lax.top_k(-both, best.shape[1])
  return -least, jnp.take_along_axis(all_places, which, 1)
