"""Searches along one path: so many draws of every step (SVDD), or of a step until one is better (rollover budget)."""

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
from diffjax.methods.generator import Solved
from diffjax.process import expand
from diffjax.steering.noise_search import _count, best
from diffjax.steering.particles import particle_keys, spread
from diffjax.steering.stepping import Stepping, check

__all__ = ['rollover', 'svdd']


def svdd(generator: Solved, reward: Callable, count: int) -> 'Value':
  """The best of `count` draws of every step, by the reward of the x0 predicted from each.

  Derivative-free and greedy: at a temperature of 0, the reward of x0 as the value function. `count` evaluations a step,
  one for the first point.   arXiv:2408.08252

  Raises:
    InputError: not a denoiser under a stochastic solver, or a count below 1.
  """
  return Value(check(generator), as_scale(reward), count=_count('count', count))


class Value(Stepping):
  """Made by `svdd`."""

  count: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample; of the sample itself none."""
    return 1 + self.count * (self.rows - 1)

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    return self.generator.cost / self.generator.nfe * self.nfe

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    state, own = self.begun(key_batch)
    t = jnp.asarray(self.generator.solver.rows.t, jnp.float32)
    many, rows = spread(cond, self.count), particle_keys(own, self.count)
    pred, _ = self.asked_at(state, t[0], cond)

    def drawn(state: Any, pred: Any, i: Array) -> Any:
      states, preds = spread((state, pred), self.count)
      return self.stepped(states, preds, jnp.full(rows.shape, i), rows)

    def step(carry: tuple, i: Array) -> tuple[tuple, None]:
      state, pred = carry
      after = drawn(state, pred, i)
      pred, r = self.asked_at(after, t[i + 1], many)
      return best(r, (after, pred), self.count)[1], None

    (state, pred), _ = jax.lax.scan(step, (state, pred), jnp.arange(self.rows - 1))
    x = self.generator.solver.output(drawn(state, pred, jnp.asarray(self.rows - 1)))
    return best(self.worth(x, many), x, self.count)[1]


def rollover(generator: Solved, reward: Callable, budget: int, *, begin: int = 25) -> 'Rollover':
  """Rollover budget forcing: draws a step until one is better, and saves what was not used for later steps.

  The best of `begin` first points by the reward of their x0. Each step then may be drawn floor((budget - begin) /
  steps) times, and what earlier steps left: the first draw whose x0 has a higher reward than any before it is taken;
  where there is none, the best of the step. The last step spends all that is left. Each draw is one evaluation (the
  last step's are judged by themselves, and are counted), in all `budget` a sample, exactly.   arXiv:2503.19385 Alg. 1

  Raises:
    InputError: not a denoiser under a stochastic solver, or a budget below one draw a step.
  """
  rows = len(check(generator).solver.rows.t)
  if not _count('begin', begin) + rows <= budget:
    raise InputError(f'budget: got {budget}; allowed: at least {begin + rows}, for {begin} beginnings and {rows} steps')
  return Rollover(generator, as_scale(reward), budget=int(budget), begin=begin)


class Rollover(Stepping):
  """Made by `rollover`."""

  budget: int = struct.field(pytree_node=False, kw_only=True)
  begin: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample."""
    return self.budget

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    return self.generator.cost / self.generator.nfe * self.nfe

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    quota, steps = (self.budget - self.begin) // self.rows, self.budget - self.begin
    state, _ = self.begun(particle_keys(key_batch, self.begin))
    many, t = spread(cond, self.begin), jnp.asarray(self.generator.solver.rows.t, jnp.float32)
    pred, r = self.asked_at(state, t[0], many)
    record, (state, pred) = best(r, (state, pred), self.begin)
    own, size = keys.fold(key_batch, 7), key_batch.shape[0]
    zero = jnp.zeros(size, jnp.int32)
    # where it is, what it draws from; the best draw of this step; the row, and how many draws it has left
    carry = ((state, pred), (state, pred), jnp.full(size, -jnp.inf), record, zero, zero + quota)

    def draw(carry: tuple, j: Array) -> tuple[tuple, None]:
      here, top, value, record, i, left = carry
      after = self.stepped(here[0], here[1], i, keys.fold(own, j))
      pred, r = self.judged(after, i + 1, cond)
      higher = r > value
      top, value = choose(higher, (after, pred), top), jnp.maximum(r, value)
      left = left - 1
      go = ((r > record) | (left <= 0)) & (i < self.rows - 1)
      here = choose(go, top, here)
      carry = (
        here, top, jnp.where(go, -jnp.inf, value), jnp.where(go, jnp.maximum(record, value), record), i + go,
        left + jnp.where(go, quota, 0),
      )  # fmt: skip
      return carry, None

    carry, _ = jax.lax.scan(draw, carry, jnp.arange(steps))
    return self.generator.solver.output(carry[1][0])


def choose(which: Array, first: Any, second: Any) -> Any:
  """`first` in the rows where `which`, else `second`."""
  return jax.tree.map(lambda a, b: jnp.where(expand(which, a), a, b), first, second)
