"""Search over the noise of a generator: what else than more steps more evaluations can buy.

Each returns a generator that wraps another, of a diffusion model or of a student of one step, and asks it so many times
a sample; `nfe` counts all of them. A reward that is not finite loses against any other.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import guidance, keys
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.methods.generator import Generator, Solved
from diffjax.process import expand
from diffjax.pytree import PyTree
from diffjax.solvers.one_step import renoise, transfer
from diffjax.steering.feynman_kac import rewarded
from diffjax.steering.particles import particle_keys, spread

__all__ = ['Search', 'best_of', 'paths', 'zero_order']


class Search(PyTree):
  """A generator that asks another one several times a sample and follows a reward."""

  generator: Any
  reward: Any

  @property
  def asked(self) -> float:
    """How many samples of the wrapped generator one sample costs."""
    raise NotImplementedError

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample, all that were searched counted."""
    return int(self.asked * self.generator.nfe)

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    return self.asked * self.generator.cost

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for a condition that the wrapped generator cannot take."""
    self.generator.check_cond(cond, field)

  def worth(self, x: Data, cond: Cond) -> Array:
    """The reward of each row, -inf where it is not a number."""
    r = rewarded(self.reward, x, cond)
    return jnp.where(jnp.isnan(r) | (r == jnp.inf), -jnp.inf, r)


def best_of(generator: Generator, reward: Callable, count: int) -> Search:
  """The best of N samples, by their reward: the maximum of N draws from the generator's law.

  Of a reward that is standard normal the mean is .564, 1.029, 1.424, 1.766 for N = 2, 4, 8, 16.

  Raises:
    InputError: count is not a whole number of at least 1.
  """
  return BestOf(generator, as_scale(reward), count=_count('count', count))


class BestOf(Search):
  """Made by `best_of`."""

  count: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def asked(self) -> float:
    return self.count

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key; the first of the N is that of the generator itself."""
    cond = spread(cond, self.count)
    x = self.generator(particle_keys(key_batch, self.count), cond)
    return best(self.worth(x, cond), x, self.count)[1]


def zero_order(
  generator: Generator, reward: Callable, rounds: int, *, neighbours: int = 4, likeness: float = 0.95
) -> Search:
  """Zero-order search: the best of a pivot's neighbours on its sphere becomes the pivot, round by round.

      z' = |z| (a z / |z| + sqrt(1 - a^2) w),   w uniform among directions orthogonal to z, a = likeness

  A round that finds nothing better draws the pivot anew, which then is one of the neighbours of the next. `neighbours`
  samples a round, exactly, and the best of all is returned.   arXiv:2501.09732

  Raises:
    InputError: a generator that does not show its noise (no `start`), counts below 1, or likeness outside [0, 1).
  """
  if not hasattr(generator, 'start'):
    raise InputError(f'generator: got {type(generator).__name__}, which does not show where it begins; allowed: one '
                     'with `start` and `finish`, or best_of')  # fmt: skip
  if not 0 <= likeness < 1:
    raise InputError(f'likeness: got {likeness}; allowed: from 0 to below 1')
  return ZeroOrder(
    generator, as_scale(reward), jnp.asarray(likeness, float),
    rounds=_count('rounds', rounds), neighbours=_count('neighbours', neighbours),
  )  # fmt: skip


class ZeroOrder(Search):
  """Made by `zero_order`."""

  likeness: Array
  rounds: int = struct.field(pytree_node=False, kw_only=True)
  neighbours: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def asked(self) -> float:
    return self.rounds * self.neighbours

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    return self.history(key_batch, cond)[0]

  def history(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[Data, Array]:
    """The samples, and the best reward after each round, (rounds, B)."""
    k, many = self.neighbours, spread(cond, self.neighbours)
    z, own = self.generator.start(key_batch)
    rows = particle_keys(key_batch, k)

    def one(carry: tuple, i: Array) -> tuple[tuple, Array]:
      z, pivot, fresh, found, record = carry
      draws = keys.fold(keys.fold(rows, 1), i)
      near = jax.tree.map(lambda z: jnp.where(expand(self._first(fresh), z), z, self._near(z, draws)), spread(z, k))
      x = self.generator.finish(near, spread_keys(own, k), many)
      r, top, start = best(self.worth(x, many), (x, near), k, with_value=True)
      better, improved = r > record, r > pivot
      found = jax.tree.map(lambda new, old: jnp.where(expand(better, new), new, old), top, found)
      again = self.generator.start(keys.fold(keys.fold(key_batch, 2), i))[0]
      go = improved | fresh
      z = jax.tree.map(lambda new, old: jnp.where(expand(go, new), new, old), start, again)
      return (z, jnp.where(go, r, -jnp.inf), ~go, found, jnp.maximum(record, r)), jnp.maximum(record, r)

    size = key_batch.shape[0]
    low = jnp.full(size, -jnp.inf)
    like = jax.eval_shape(lambda: self.generator.finish(z, own, cond))
    blank = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), like)
    carry, record = jax.lax.scan(one, (z, low, jnp.ones(size, bool), blank, low), jnp.arange(self.rounds))
    return carry[3], record

  def _first(self, fresh: Array) -> Array:
    """Which rows are the pivot itself: the first of a sample whose pivot was not judged yet."""
    return jnp.repeat(fresh, self.neighbours) & (jnp.arange(len(fresh) * self.neighbours) % self.neighbours == 0)

  def _near(self, z: Array, draws: KeyBatch) -> Array:
    flat = z.reshape(len(z), -1)
    if flat.shape[1] == 1:
      raise InputError('generator: got samples of one number, whose noise has no neighbours of its size; allowed: two '
                       'numbers at least, or best_of')  # fmt: skip
    size = jnp.linalg.norm(flat, axis=1, keepdims=True)
    u = flat / size
    w = keys.normal(draws, flat)
    w = w - jnp.sum(w * u, 1, keepdims=True) * u
    w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
    return (size * (self.likeness * u + jnp.sqrt(1 - self.likeness**2) * w)).reshape(z.shape)


def paths(
  generator: Solved, reward: Callable, width: int, *, branches: int = 4, first: int = 2, up: int = 1, down: int = 2
) -> Search:
  """Search over paths: keeps the best of what noisings of a point lead to, from one noise level to the next.

  `width` samples take `first` DDIM steps of the generator's grid. Then each is noised by `up` nodes in `branches` ways,
  denoised by `down` of them, and the `width` best stay, judged by the x0 of their last step; until the data, where the
  best is returned. Costs width first + rounds width branches down evaluations.   arXiv:2501.09732

  Raises:
    InputError: not a generator of a denoiser under a solver, counts below 1, up not below down, or up above first.
  """
  if not isinstance(generator, Solved):
    raise InputError(f'generator: got {type(generator).__name__}; allowed: a denoiser under a solver, or best_of')
  counts = {'width': width, 'branches': branches, 'first': first, 'up': up, 'down': down}
  for field, value in counts.items():
    _count(field, value)
  if not up < down or up > first:
    raise InputError(f'up: got {up}; allowed: below down, {down}, and at most first, {first}')
  t, evaluated = (np.asarray(part) for part in (generator.solver.rows.t, generator.solver.rows.evaluated))
  times = np.unique(np.append(t[evaluated], 0.0))[::-1]
  return Paths(generator, as_scale(reward), jnp.asarray(times, float), n=len(times) - 1, **counts)


class Paths(Search):
  """Made by `paths`."""

  times: Array
  n: int = struct.field(pytree_node=False, kw_only=True)
  width: int = struct.field(pytree_node=False, kw_only=True)
  branches: int = struct.field(pytree_node=False, kw_only=True)
  first: int = struct.field(pytree_node=False, kw_only=True)
  up: int = struct.field(pytree_node=False, kw_only=True)
  down: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def legs(self) -> list[tuple[int, int, int]]:
    """(rows, first node, last node) of every stretch of DDIM steps."""
    at, legs = min(self.first, self.n), [(self.width, 0, min(self.first, self.n))]
    while at < self.n:
      to = min(at - self.up + self.down, self.n)
      legs.append((self.width * self.branches, at - self.up, to))
      at = to
    return legs

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample."""
    return sum(rows * (to - at) for rows, at, to in self.legs)

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    each = [guidance.cost(self.generator.denoise, float(t)) for t in self.times[:-1]]
    return float(sum(rows * sum(each[at:to]) for rows, at, to in self.legs))

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    x = self.generator.start(particle_keys(key_batch, self.width))[0]
    many, process = spread(cond, self.width * self.branches), self.generator.denoise.process
    (_, _, at), *rest = self.legs
    x, x0 = self._down(x, 0, at, spread(cond, self.width))
    for i, (rows, back, to) in enumerate(rest):
      own = keys.fold(keys.fold(particle_keys(key_batch, rows), 3), i)
      x = jax.tree.map(
        lambda x, z, at=at, back=back: renoise(process, x, self.times[at], self.times[back], z),
        spread(x, self.branches), keys.normal(own, spread(x, self.branches)),
      )  # fmt: skip
      x, x0 = self._down(x, back, to, many)
      r = self.worth(x0, many).reshape(-1, rows)
      keep = jnp.argsort(-r, axis=1)[:, : self.width] + rows * jnp.arange(len(r))[:, None]
      x, x0 = jax.tree.map(lambda leaf, keep=keep: leaf[keep.reshape(-1)], (x, x0))
      at = to
    return best(self.worth(x, spread(cond, self.width)), x, self.width)[1]

  def _down(self, x: Data, at: int, to: int, cond: Cond) -> tuple[Data, Data]:
    """DDIM steps between two nodes, and the last prediction of x0."""
    denoise = self.generator.denoise

    def step(carry: tuple, ends: Array) -> tuple[tuple, None]:
      x, _ = carry
      pred = denoise(x, ends[0], cond)
      move = lambda x, x0: transfer(denoise.process, x, x0, ends[0], ends[1]).astype(x.dtype)  # noqa: E731
      return (jax.tree.map(move, x, pred.x0), pred.x0), None

    return jax.lax.scan(step, (x, x), jnp.stack([self.times[at:to], self.times[at + 1 : to + 1]], 1))[0]


def best(r: Array, tree: Any, count: int, with_value: bool = False) -> tuple:
  """(reward, *what has the best reward among the `count` rows of each sample); NaN where none has one."""
  r = r.reshape(-1, count)
  rows = jnp.argmax(r, 1) + count * jnp.arange(len(r))
  top = jnp.max(r, 1)

  def pick(leaf: Array) -> Array:
    return jnp.where(expand(top > -jnp.inf, leaf[rows]), leaf[rows], jnp.nan)

  found = jax.tree.map(pick, tree)
  return (top, *found) if with_value else (top, found)


def spread_keys(key_batch: KeyBatch, count: int) -> KeyBatch:
  """Every key `count` times: neighbours differ by their noise alone."""
  return jnp.repeat(key_batch, count, axis=0)


def noise_size(generator: Any) -> Array:
  """The deviation of the noise at which a generator begins."""
  process = (generator.denoise if hasattr(generator, 'denoise') else generator.jump).process
  return process.schedule(jnp.asarray(generator.law[0]))[1]


def _count(field: str, value: Any) -> int:
  if not (isinstance(value, int | np.integer) and value >= 1):
    raise InputError(f'{field}: got {value!r}; allowed: a whole number of at least 1')
  return int(value)
