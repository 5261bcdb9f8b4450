"""Feynman-Kac steering: particles weighed by the reward of what is predicted of them, exact as they grow in number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Pred
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.solvers import Solver
from diffjax.steering.particles import Particles, Rows, wrapped

__all__ = ['feynman_kac', 'gaussian_looks']

POTENTIALS = ('difference', 'max', 'sum')


def feynman_kac(
  solver: Solver,
  reward: Callable,
  particles: int,
  *,
  scale: float = 1.0,
  potential: str = 'difference',
  every: int = 1,
  threshold: float = 0.5,
  looks: Callable | None = None,
  cond: Cond = None,
  whole: bool = False,
) -> Any:
  """Feynman-Kac steering: K particles a sample, towards the law p(x0 | cond) exp(scale reward(x0)) / Z.

  At every evaluation, or one in `every`, r_t is the reward of the x0 predicted there, and the weight gains a potential
  whose product up to t is

      difference   exp(scale r_t)
      max          exp(scale sum_u max_{v >= u} r_v)
      sum          exp(scale sum_u sum_{v >= u} r_v)

  the sums over the evaluations u >= t so far. The factor at the end, exp(scale reward(x0)) over that product, makes
  the law exact for all three as K grows, with an error of 1 / sqrt(K). `difference` reaches it with the fewest
  particles; the other two overshoot on the way, the more the more often they weigh, and want a few weighings. Weights
  are carried until a sample is resampled (the published code drops them in between, and is biased). No gradient of the
  reward is needed; it costs K evaluations a step.   arXiv:2501.06848

  Args:
    solver: the method on its grid, a stochastic one.
    reward: (x0 (B, ...), cond) -> (B,); as a pytree its numbers may change without another compilation. Where it is
      not finite the particle is dropped and counted.
    particles: K; x, keys and conditions have B K rows, see `particles.spread`.
    scale: lambda; 0 is the plain solver.
    potential: difference, max or sum.
    every: how many evaluations apart particles are weighed; the reward is not asked at the others.
    threshold: resample where fewer than this share of K are effective.
    looks: (x0, t, keys) -> (m, B, ...) draws of x0, of which r_t is the log-mean-exp, see `gaussian_looks`; None looks
      at the prediction itself.
    cond: the condition of each of B K rows, which the reward reads.
    whole: return all particles with their weights.

  Raises:
    InputError: a potential or count that is not there; when run, a reward of another shape than one a row.
  """
  if potential not in POTENTIALS:
    raise InputError(f'potential: got {potential!r}; allowed: {", ".join(POTENTIALS)}')
  if not (isinstance(every, int) and every >= 1):
    raise InputError(f'every: got {every!r}; allowed: a whole number of at least 1')
  solver, rows, share, last = wrapped(solver, particles, threshold, every=every)
  return FeynmanKac(
    solver, rows, share, last, cond, as_scale(reward), jnp.asarray(scale, float),
    None if looks is None else as_scale(looks),
    potential=potential, count=particles, whole=whole, skips=solver.skips,
  )  # fmt: skip


class FeynmanKac(Particles):
  """Made by `feynman_kac`. What it remembers of a particle: r or its running maximum or sum, and the log-product."""

  reward: Any = None
  scale: Any = None
  looks: Any = None
  potential: str = struct.field(pytree_node=False, default='difference', kw_only=True)

  def begin(self, x: Data) -> tuple[Array, Array]:
    size = jax.tree.leaves(x)[0].shape[0]
    return jnp.full(size, -jnp.inf if self.potential == 'max' else 0.0), jnp.zeros(size)

  def factor(self, told: Any, pred: Pred, row: Rows, key_batch: KeyBatch) -> tuple[Array, Any]:
    running, product = told
    r = self.worth(pred, row, key_batch)
    if self.potential == 'difference':
      running, after = r, self.scale * r
    else:
      running = jnp.maximum(running, r) if self.potential == 'max' else running + r
      after = product + self.scale * running
    good = jnp.isfinite(r)
    return jnp.where(good, after - product, jnp.nan), (jnp.where(good, running, 0), jnp.where(good, after, 0))

  def closing(self, told: Any, x: Data) -> Array:
    return self.scale * rewarded(self.reward, x, self.cond) - told[1]

  def worth(self, pred: Pred, row: Rows, key_batch: KeyBatch) -> Array:
    """The reward r_t (B K,) of what is predicted."""
    if self.looks is None:
      return rewarded(self.reward, pred.x0, self.cond)
    drawn = self.looks(pred.x0, row.t, keys.fold(keys.fold(key_batch, 2**31 - 9), row.stream))
    r = jax.vmap(lambda x0: rewarded(self.reward, x0, self.cond))(drawn)
    scale = jnp.where(self.scale == 0, 1.0, self.scale)
    return (jax.nn.logsumexp(scale * r, 0) - jnp.log(len(r))) / scale


def rewarded(reward: Callable, x: Data, cond: Cond) -> Array:
  """The reward of each row, float32.

  Raises:
    InputError: it is not one number a row.
  """
  size = jax.tree.leaves(x)[0].shape[0]
  r = jnp.asarray(reward(x, cond))
  if r.shape != (size,):
    raise InputError(f'reward: got shape {r.shape} of {size} samples; allowed: one number a sample, ({size},)')
  return r.astype(jnp.float32)


def gaussian_looks(process: Process, count: int, data_std: float = 1.0) -> 'Looks':
  """Draws of x0 given x_t, were the data of this deviation about the prediction.

  x0 + sigma s / sqrt(alpha^2 s^2 + sigma^2) z,   s = data_std
  """
  return Looks(process, jnp.asarray(data_std, float), count)


class Looks(PyTree):
  """Made by `gaussian_looks`."""

  process: Process
  data_std: Array
  count: int = struct.field(pytree_node=False)

  def __call__(self, x0: Data, t: Array, key_batch: KeyBatch) -> Any:
    alpha, sigma = self.process.schedule(jnp.asarray(t))
    std = sigma * self.data_std / jnp.hypot(alpha * self.data_std, sigma)

    def drawn(key_batch: KeyBatch) -> Any:
      return jax.tree.map(lambda x, z: x + expand(std, x).astype(x.dtype) * z, x0, keys.normal(key_batch, x0))

    each = [drawn(keys.fold(key_batch, i)) for i in range(self.count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
