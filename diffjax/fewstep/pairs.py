"""Laws of the times (t, u, s) of a jump: from t to s, and u between, where the jump is compared.

A law is (process, progress, keys) -> Times, one triple a key; `progress` is the number of steps done, an array, so that
a curriculum over it is data and one program serves all of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import norm

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.errors import InputError
from diffjax.losses.times import TimeLaw, logit_normal
from diffjax.noise_levels import times_of
from diffjax.process import Process

__all__ = ['Ladder', 'Times', 'constantly', 'doubling', 'dyadic', 'ending', 'lagging', 'neighbours', 'nodes',
           'ordered', 'rungs', 'skipping', 'square_root', 'strides', 'triples']  # fmt: skip


class Times(NamedTuple):
  """From t to s, and u between: t >= u >= s, (B,) each."""

  t: Array
  u: Array
  s: Array


Law = Callable[[Process, Array, KeyBatch], Times]
Count = Callable[[Array], Array]


class Ladder(NamedTuple):
  """EDM's grid as a function of the rank r in [0, 1]: (sigma / alpha)^(1/rho) grows evenly, t_min at 0, t_max at 1.

  arXiv:2206.00364 eq. 5
  """

  process: Process
  rho: float = 7.0

  def ends(self) -> tuple[Array, Array]:
    """(sigma / alpha)^(1/rho) at t_min, and at t_max or, where alpha is 0 there, just below it."""
    first, last = self.process.lam(self.process.t_min), self.process.lam(self.process.t_max)
    last = jnp.where(jnp.isfinite(last), last, self.process.lam(self.process.t_max * (1 - 1e-3)))
    return jnp.exp(-first / self.rho), jnp.exp(-last / self.rho)

  def __call__(self, rank: Array) -> Array:
    """The time of a rank; t_min and t_max themselves at its ends."""
    low, high = self.ends()
    p = self.process
    t = jnp.clip(p.lam_inverse(-self.rho * jnp.log(low + rank * (high - low))), p.t_min, p.t_max)
    return jnp.where(rank <= 0, p.t_min, jnp.where(rank >= 1, p.t_max, t))

  def normal_ranks(self, mean: float, std: float, u: Array) -> Array:
    """The quantiles u of the rank where log(sigma / alpha) ~ N(mean, std^2), cut off at the ends.

    Rounded down to a grid of n intervals, interval i has the probability that the normal law gives it, which is the
    discrete law of arXiv:2310.14189 sec. 3.5.
    """
    low, high = self.ends()
    first, last = (norm.cdf(self.rho * jnp.log(end), mean, std) for end in (low, high))
    level = mean + std * norm.ppf(first + u * (last - first))
    return (jnp.exp(level / self.rho) - low) / (high - low)


def rungs(process: Process, rho: float) -> Callable[[Array], Array]:
  """The time of a rank in [0, 1], t_min at 0 and t_max at 1: even in t at rho = 0, else the `Ladder` of that rho."""
  if rho:
    return Ladder(process, rho)
  return lambda rank: jnp.where(rank >= 1, process.t_max, process.t_min + rank * (process.t_max - process.t_min))


def nodes(process: Process, n: int, rho: float = 7.0) -> np.ndarray:
  """The times above the first of a ladder of n intervals, from which jumps go; float64, on the host."""
  ladder = Ladder(process, rho)
  low, high = (float(end) for end in ladder.ends())
  inner = low + np.arange(1, n) / n * (high - low)
  return np.append(times_of(process, -rho * np.log(inner)), float(process.t_max))


def constantly(n: int) -> Count:
  """N intervals at every step."""
  if not (isinstance(n, int | np.integer) and n >= 1):
    raise InputError(f'intervals: got {n!r}; allowed: a whole number of at least 1')
  return lambda progress: jnp.asarray(n, float)


def square_root(first: int, last: int, steps: int) -> Count:
  """N(k) = ceil(sqrt(k/K ((last + 1)^2 - first^2) + first^2) - 1), at least 1.   arXiv:2303.01469 app. C."""

  def count(progress: Array) -> Array:
    share = jnp.clip(progress / steps, 0, 1)
    return jnp.maximum(jnp.ceil(jnp.sqrt(share * ((last + 1) ** 2 - first**2) + first**2) - 1), 1)

  return count


def doubling(first: int, last: int, steps: int) -> Count:
  """N(k) = min(first 2^floor(k / K'), last), K' = floor(K / (log2(floor(last / first)) + 1)).   arXiv:2310.14189."""
  period = max(int(steps // (np.log2(last // first) + 1)), 1)
  return lambda progress: jnp.minimum(first * 2.0 ** (progress // period), last)


def neighbours(count: Count, *, rho: float = 7.0, normal: tuple[float, float] | None = None) -> Law:
  """Neighbours t > u of a ladder of count(progress) intervals, to its end s = t_min.

  Args:
    count: progress -> the number of intervals.
    rho: of the ladder; 0 for one that is even in t.
    normal: the mean and deviation of log(sigma / alpha) where that is normal; the intervals are even otherwise.
  """

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    ladder, n, u = rungs(process, rho), count(progress), keys.uniform(key_batch)
    rank = u if normal is None else Ladder(process, rho).normal_ranks(*normal, u)
    i = jnp.clip(jnp.floor(n * rank), 0, n - 1)
    return Times(ladder((i + 1) / n), ladder(i / n), jnp.full_like(u, process.t_min))

  return times


def skipping(fine: int, skip: int) -> Law:
  """From i skip of `fine` steps of t_max to the step before it of so many, or to the first of all, to which jumps lead.

  Raises:
    InputError: they are no whole numbers, or the one does not divide the other.
  """
  whole = isinstance(fine, int) and isinstance(skip, int) and fine > skip > 1
  if not whole or fine % skip:
    raise InputError(f'fine, skip: got {fine!r}, {skip!r}; allowed: whole numbers, skip from 2, a divisor of fine')

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    i = jnp.floor(keys.uniform(key_batch) * (fine // skip)) + 1
    at = lambda i: process.t_max * i / fine  # noqa: E731
    return Times(at(i * skip), at(jnp.maximum((i - 1) * skip, 1)), at(jnp.ones_like(i)))

  return times


def triples(n: int, *, most: int, rho: float = 7.0) -> Law:
  """Times of a ladder of n intervals: t, u up to `most` intervals nearer the data, and s anywhere from u to the end.

  The number of intervals from t to u has p(k) ~ k on 1 .. most, cut off where the ladder ends; s is even on those left.
  arXiv:2310.02279 Alg. 1
  """
  if not 1 <= most <= n:
    raise InputError(f'most: got {most}; allowed: 1 to the {n} intervals of the ladder')

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    ladder = Ladder(process, rho)
    i, k, j = (keys.uniform(part) for part in keys.split(key_batch, 3))
    i = jnp.floor(n * i) + 1
    k = jnp.ceil((jnp.sqrt(1 + 4 * most * (most + 1) * k) - 1) / 2)  # inverts k (k + 1) = most (most + 1) u
    u = jnp.maximum(i - jnp.clip(k, 1, most), 0)
    s = jnp.floor((u + 1) * j)
    return Times(ladder(i / n), ladder(u / n), ladder(s / n))

  return times


def ending(law: TimeLaw, end: float | None = None) -> Law:
  """One time t = u of a law, and the end, t_min unless given."""

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    t = law(process, key_batch)
    return Times(t, t, jnp.full_like(t, process.t_min if end is None else end))

  return times


def ordered(law: TimeLaw | None = None, *, equal: float = 0.75) -> Law:
  """Two draws of a law (logit-normal(-.4, 1)), the later is t = u and the other s; s = t with probability `equal`.

  arXiv:2505.13447 sec. 4.2
  """
  law = logit_normal(-0.4, 1.0) if law is None else law
  if not 0 <= equal <= 1:
    raise InputError(f'equal: got {equal}; allowed: a probability in [0, 1]')

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    first, second, coin = keys.split(key_batch, 3)
    a, b = law(process, first), law(process, second)
    t = jnp.maximum(a, b)
    return Times(t, t, jnp.where(keys.bernoulli(coin, equal), t, jnp.minimum(a, b)))

  return times


def dyadic(depth: int, *, finest: bool = False) -> Law:
  """Steps of 2^-k t_max, k even on 0 .. depth - 1, from a multiple of it, with u half-way; with `finest` k = depth.

  Then u = s, as the finest step has no half.   arXiv:2410.12557 Alg. 1
  """
  if not (isinstance(depth, int | np.integer) and 1 <= depth <= 16):
    raise InputError(f'depth: got {depth!r}; allowed: a whole number from 1 to 16')

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    size, place = keys.split(key_batch, 2)
    k = jnp.full(key_batch.shape, float(depth)) if finest else jnp.floor(depth * keys.uniform(size))
    count = 2.0**k
    i = jnp.floor(count * keys.uniform(place)) + 1
    at = lambda i: process.t_max * i / count  # noqa: E731
    return Times(at(i), at(i - 1) if finest else at(i - 0.5), at(i - 1))

  return times


def strides(n: int) -> Law:
  """Strides of t_max / n between multiples of it, each as likely: from t to u = s."""
  if not (isinstance(n, int | np.integer) and n >= 1):
    raise InputError(f'strides: got {n!r}; allowed: a whole number of at least 1')

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    i = jnp.floor(n * keys.uniform(key_batch)) + 1
    s = process.t_max * (i - 1) / n
    return Times(process.t_max * i / n, s, s)

  return times


def lagging(law: TimeLaw, share: float) -> Law:
  """One time t of a law, and u = s that share of t_max nearer the data, at 0 where that is beyond."""
  if not 0 < share <= 1:
    raise InputError(f'share: got {share}; allowed: 0 < share <= 1')

  def times(process: Process, progress: Array, key_batch: KeyBatch) -> Times:
    t = law(process, key_batch)
    s = jnp.maximum(t - share * process.t_max, 0)
    return Times(t, s, s)

  return times
