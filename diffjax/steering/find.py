"""FIND: a Gaussian policy of the initial noise, moved by policy gradients of a reward that nobody differentiates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.methods.generator import Generator
from diffjax.steering.noise_search import Search, _count, noise_size
from diffjax.steering.particles import particle_keys, spread

__all__ = ['find']

LEAST = 1e-4  # of a deviation, as published


def find(
  generator: Generator, reward: Callable, updates: int = 60, *, batch: int = 64, rate: float = 0.05,
  clip: float = 0.2, kl: float = 0.01, epochs: int = 1,
) -> 'Find':  # fmt: skip
  """Fits the law of the initial noise, N(mu, std^2) in place of N(0, 1), to a reward; one policy a sample.

      maximise  D E[min(rho A, clip(rho, 1 - c, 1 + c) A)] - kl KL(N(mu, std^2) | N(0, 1))

  A = reward - mean of the other rewards of its batch; rho is the ratio of the densities, new over the one that drew,
  to the power 1 / D of the dimension. Then a draw from the fitted policy goes through the generator. The released code
  differs: no minimum, the ratio taken to the first policy of all, and mean(mu^2 + (std - 1)^2) in place of the KL; its
  deviations end near 0. `kl` is what keeps the draws apart.

  arXiv:2407.19453

  Args:
    generator: one that shows its noise, `start` and `finish`.
    reward: as of `feynman_kac`.
    updates: of the policy, each of `batch` samples.
    batch: see `updates`.
    rate: of Adam.
    clip: c; the ratio leaves 1 with `epochs` above 1 only.
    kl: its weight, in units of the reward.
    epochs: gradient steps on the samples of an update.

  Raises:
    InputError: a generator without `start`, counts below 1, or a batch of 1, which has no baseline.
  """
  if not hasattr(generator, 'start'):
    raise InputError(f'generator: got {type(generator).__name__}, which does not show where it begins; allowed: one '
                     'with `start` and `finish`')  # fmt: skip
  if _count('batch', batch) < 2:
    raise InputError('batch: got 1; allowed: at least 2, each is the baseline of the others')
  numbers = (jnp.asarray(v, float) for v in (rate, clip, kl))
  return Find(generator, as_scale(reward), *numbers, updates=_count('updates', updates), batch=batch,
              epochs=_count('epochs', epochs))  # fmt: skip


class Find(Search):
  """Made by `find`."""

  rate: Array
  clip: Array
  kl: Array
  updates: int = struct.field(pytree_node=False, kw_only=True)
  batch: int = struct.field(pytree_node=False, kw_only=True)
  epochs: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def asked(self) -> float:
    return self.updates * self.batch + 1

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key, each of a policy of its own."""
    (mu, std), _ = self.policies(key_batch, cond)
    x, own = self.generator.start(key_batch)
    return self.generator.finish(mu + std * x, own, cond)

  def policies(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[tuple[Array, Array], Array]:
    """The policy (mu, std) of each sample, in units of its first noise, and the mean reward (updates, B) on the way.

    mu is in the units of x where it begins, std a factor of the noise there.
    """
    like, _ = self.generator.start(key_batch)
    unit = noise_size(self.generator)  # Adam's rate is in units of the noise
    adam = optax.inject_hyperparams(optax.adam)(learning_rate=self.rate)
    policy = (jnp.zeros_like(like), jnp.ones_like(like))
    many = spread(cond, self.batch)

    def update(carry: tuple, i: Array) -> tuple[tuple, Array]:
      policy, moments = carry
      drawn = particle_keys(keys.fold(keys.fold(key_batch, 5), i), self.batch)
      noise, own = self.generator.start(drawn)
      z = noise / unit
      action = spread(policy[0], self.batch) + spread(policy[1], self.batch) * z
      r = self.worth(self.generator.finish(action * unit, own, many), many).reshape(-1, self.batch)
      fine = jnp.where(jnp.isfinite(r), r, jnp.min(jnp.where(jnp.isfinite(r), r, jnp.inf), 1, keepdims=True))
      ahead = (fine - fine.mean(1, keepdims=True)) * self.batch / (self.batch - 1)
      old = log_density(policy, action, self.batch)
      for _ in range(self.epochs):
        slope = jax.grad(self._loss)(policy, action, ahead, old)
        step, moments = adam.update(slope, moments, policy)
        moved: Any = optax.apply_updates(policy, step)
        policy = moved[0], jnp.maximum(moved[1], LEAST)
      return (policy, moments), fine.mean(1)

    ((mu, std), _), rewards = jax.lax.scan(update, (policy, adam.init(policy)), jnp.arange(self.updates))
    return (mu * unit, std), rewards

  def _loss(self, policy: tuple[Array, Array], action: Array, ahead: Array, old: Array) -> Array:
    mu, std = policy
    d = mu[0].size
    ratio = jnp.exp((log_density(policy, action, self.batch) - old) / d)
    gain = jnp.minimum(ratio * ahead, jnp.clip(ratio, 1 - self.clip, 1 + self.clip) * ahead)
    apart = jnp.sum((mu**2 + std**2 - 1 - 2 * jnp.log(std)).reshape(len(mu), -1), 1) / 2
    return jnp.sum(self.kl * apart - d * gain.mean(1))


def log_density(policy: tuple[Array, Array], action: Array, batch: int) -> Array:
  """Of actions (B batch, ...) under the policies of their samples, up to a constant, (B, batch)."""
  mu, std = (spread(part, batch) for part in policy)
  each = -0.5 * ((action - mu) / std) ** 2 - jnp.log(std)
  return jnp.sum(each.reshape(len(action), -1), 1).reshape(-1, batch)
