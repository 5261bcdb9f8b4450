"""Reinforcement learning of a few-step sampler: its noisy transitions are the actions, its sample has the reward."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys, rewards
from diffjax.errors import InputError
from diffjax.fewstep.transitions import Way, log_probs, policy, rollout
from diffjax.methods import Parts
from diffjax.methods.starts import tuned, tuning
from diffjax.pytree import PyTree
from diffjax.train.roles import Buffer, Method, Phase

__all__ = ['rl_consistency']

MOST = 10.0  # deviations that an advantage may be


def rl_consistency(
  parts: Parts,
  *,
  reward: Any,
  steps: int = 4,
  grid: Any = 'uniform',
  scale: float = 1.0,
  ways: int = 64,
  updates: int = 1,
  clip: float = 1e-4,
  memory: int = 32,
  least: int = 16,
) -> Method:
  """RLCM: a consistency model is rewarded for its samples, by PPO over the noise between its jumps.

  With rho = p_theta(x_k+1 | x_k) / p_old of every noisy transition of a way and A = (R - mean) / std of its label,

      E max(-A rho, -A clip(rho, 1 - e, 1 + e))

  The log-probabilities are means over the dimensions, hence the narrow clip. The last jump has no noise and no gradient
  of its own. It needs no data: labels are drawn evenly.   arXiv:2404.03673 Alg. 1

  Args:
    parts: with a base, the run that is tuned.
    reward: of `diffjax.rewards`, a name or a dict of a name and its options; it needs no gradient.
    steps: jumps of a sample.
    grid: of the jumps, as `config.sampling.grid`: its name, or the times themselves.
    scale: that a base is told which takes one.
    ways: samples drawn at a time.
    updates: steps that learn from them before others are drawn.
    clip: e.
    memory: rewards of a label, its last ones, of which mean and deviation are taken.
    least: as many of them must be there; till then those of all samples drawn now are taken.

  Raises:
    InputError: no base or one that does not fit, a reward or grid of another name, a number out of its range.
  """
  base, worth = tuned(parts), rewards.named(reward)
  counts = dict(ways=ways, updates=updates, memory=memory, least=least)
  if not all(isinstance(n, int) and n >= 1 for n in counts.values()) or least > memory or not 0 < clip < 1:
    raise InputError(f'ways, updates, memory, least, clip: got {ways}, {updates}, {memory}, {least}, {clip}; allowed: '
                     'whole numbers of at least 1, least at most memory, and a clip between 0 and 1')  # fmt: skip
  made = policy(base, steps, grid, scale)

  def drawn(roles: Mapping[str, Any], seen: 'Seen', key: Array) -> 'Drawn':
    k_label, k_way = keys.split(keys.per_sample(key, ways), 2)
    label = jnp.floor(keys.uniform(k_label) * max(parts.classes, 1)).astype(jnp.int32)
    draw, cond = made(roles['student']), label if parts.classes else None
    way = rollout(draw, k_way, cond)
    value = worth(way.end, cond).astype(jnp.float32)
    seen = seen.add(value, label)
    return Drawn(jnp.zeros((), jnp.int32), way, label, value, seen.advantage(value, label, least),
                 log_probs(draw, way, cond), seen)  # fmt: skip

  def init(key: Array) -> 'Drawn':
    shapes = jax.eval_shape(drawn, {'student': base.params}, Seen.none(max(parts.classes, 1), memory), key)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return blank.replace(age=jnp.asarray(updates - 1, jnp.int32))

  def renew(roles: Mapping[str, Any], kept: 'Drawn', batch: Any, key: Array) -> 'Drawn':
    age = kept.age + 1
    return jax.lax.cond(age >= updates, lambda: drawn(roles, kept.seen, key), lambda: kept.replace(age=age))

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    kept: Drawn = jax.lax.stop_gradient(roles['drawn'])
    now = log_probs(made(roles['student']), kept.way, kept.label if parts.classes else None)
    ratio = jnp.exp(now - kept.log_prob)
    bounded = jnp.clip(ratio, 1 - clip, 1 + clip)
    value = jnp.mean(jnp.maximum(-kept.advantage * ratio, -kept.advantage * bounded), 0)
    return value, {'reward': kept.reward, 'clipped': jnp.mean((ratio != bounded).astype(jnp.float32), 0)}

  return Method(
    phases=(Phase('student', loss, parts.optimiser()),), buffers={'drawn': Buffer(init, renew)}, **tuning(base)
  )


class Seen(PyTree):
  """The last rewards of each label, (labels, memory), and how many there have been, (labels,)."""

  values: Array
  count: Array

  @classmethod
  def none(cls, labels: int, memory: int) -> 'Seen':
    """Nothing seen."""
    return cls(jnp.zeros((labels, memory)), jnp.zeros((labels,), jnp.int32))

  def add(self, value: Array, label: Array) -> 'Seen':
    """With these rewards (B,) of these labels; of more than there is room for, the last ones."""
    labels, memory = self.values.shape
    own = jax.nn.one_hot(label, labels, dtype=jnp.int32)
    total = jnp.sum(own, 0)
    rank = jnp.sum((jnp.cumsum(own, 0) - 1) * own, 1)  # among those of its label
    place = (self.count[label] + rank) % memory
    place = jnp.where(rank >= total[label] - memory, place, memory)  # outside: left out
    return Seen(self.values.at[label, place].set(value, mode='drop'), self.count + total)

  def advantage(self, value: Array, label: Array, least: int) -> Array:
    """(R - mean) / std of what was seen of its label, or of all these rewards where that is less than `least`."""
    there = jnp.arange(self.values.shape[1]) < self.count[:, None]
    mean, std = moments(self.values, there)
    enough = self.count >= least
    mean, std = jnp.where(enough, mean, jnp.mean(value)), jnp.where(enough, std, jnp.std(value))
    return jnp.clip((value - mean[label]) / (std[label] + 1e-6), -MOST, MOST)


def moments(values: Array, there: Array) -> tuple[Array, Array]:
  """Mean and deviation along the last axis of those that are there."""
  n = jnp.maximum(jnp.sum(there, -1), 1)
  mean = jnp.sum(jnp.where(there, values, 0), -1) / n
  return mean, jnp.sqrt(jnp.sum(jnp.where(there, (values - mean[:, None]) ** 2, 0), -1) / n)


class Drawn(PyTree):
  """What a step learns from: ways and all that was known of them when they were drawn.

  Attributes:
    age: steps that have learnt from them, but this one.
    way: of each sample.
    label, reward, advantage: (B,).
    log_prob: of each transition, (n - 1, B).
    seen: the rewards of each label up to now.
  """

  age: Array
  way: Way
  label: Array
  reward: Array
  advantage: Array
  log_prob: Array
  seen: Seen
