"""Reverse steps without discretisation error, of targets known in closed form: what particle methods are tested on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Data, KeyBatch, Time
from diffjax.errors import InputError
from diffjax.exact import Mixture, einsum
from diffjax.noise_levels import checked
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers.noise import Noise, independent

__all__ = ['exact_steps']


def exact_steps(target: Mixture, process: Process, ts: Any) -> 'ExactSteps':
  """A solver whose every step is an exact draw of p(x_s | x_t), however long; the last may go to sigma = 0.

  A mixture again: component k, of probability that x_t came from it, has mean and covariance of the DDPM kernel over
  its posterior of x0. The prediction is not used, but counts as an evaluation: wrappers look at it.

  Raises:
    InputError: the grid is no falling sequence of times of the process.
  """
  ts = checked(process, ts)
  n = len(ts) - 1
  rows = Rows(ts[:-1], ts[1:], np.ones(n, bool), np.arange(n, dtype=np.int32))
  return ExactSteps(target, process, rows)


class Rows(NamedTuple):
  """Steps from t to s."""

  t: Time
  s: Time
  evaluated: Any
  stream: Any


class ExactSteps(PyTree):
  """Made by `exact_steps`; the state is x (B, d)."""

  target: Mixture
  process: Process
  rows: Rows
  stochastic: bool = struct.field(pytree_node=False, default=True)
  skips: bool = struct.field(pytree_node=False, default=False)

  @property
  def nfe(self) -> int:
    """Evaluations of the denoiser: every row."""
    return len(self.rows.t)

  def init(self, x: Data, key: Array | None = None) -> Array:
    return x

  def point(self, state: Array) -> Array:
    return state

  def output(self, state: Array) -> Array:
    return state

  def transition(self, state: Array, pred: Pred, row: Rows) -> tuple[Any, Any]:
    """No Gaussian: InputError. `law` gives it."""
    raise InputError('transition: got exact steps, which are mixtures; allowed: their `law`, or a Gaussian solver')

  def law(self, x: Array, row: Rows) -> tuple[Array, Array, Array]:
    """Log-probabilities (B, K), means (B, K, d) and variances (K, d) along the basis, of the components of x_s."""
    t, s = row.t.astype(x.dtype), row.s.astype(x.dtype)
    log_r, clean, var = self.target.posterior_parts(x, *self.process.schedule(t))
    zero = jnp.zeros((1, 1), x.dtype)
    pull, std = self.process.posterior(zero, zero + 1, t, s)
    keep, _ = self.process.posterior(zero + 1, zero, t, s)
    return log_r, keep * x[:, None] + pull * clean, pull**2 * var + std**2

  def update(self, state: Array, pred: Pred, row: Rows, key_batch: KeyBatch, noise: Noise = independent) -> Array:
    """An exact draw."""
    return self.shifted(state, row, key_batch, noise, jnp.zeros_like(state))[0]

  def shifted(self, state: Array, row: Rows, key_batch: KeyBatch, noise: Noise, slope: Array) -> tuple[Array, Array]:
    """A draw of the law with every component moved by its covariance times `slope`, and log p / q of it (B,)."""
    log_r, means, var = self.law(state, row)
    part = jax.vmap(jax.random.categorical)(keys.fold(keys.fold(key_batch, row.stream), 1), log_r)
    basis = self.target.basis
    moved = means + einsum('kij,kj,klj,bl->bki', basis, var, basis, slope)
    z = noise(key_batch, row, state)
    x = jnp.take_along_axis(moved, part[:, None, None], 1)[:, 0]
    x = x + einsum('bij,bj->bi', basis[part], jnp.sqrt(var[part]) * z)
    safe = jnp.maximum(var, jnp.finfo(x.dtype).tiny)  # a step to the data of a point: nothing was moved

    def log_density(means: Array) -> Array:
      y = einsum('kij,bki->bkj', basis, x[:, None] - means)
      return jax.nn.logsumexp(log_r - jnp.sum(y**2 / safe, -1) / 2 - jnp.sum(jnp.log(safe), -1) / 2, -1)

    return x, log_density(means) - log_density(moved)
