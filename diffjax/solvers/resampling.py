"""Weighted particles, (B, K) log-weights of K particles a sample: how even they are, and how they are resampled."""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ['ess', 'log_mean', 'normalised', 'pick', 'systematic']


def normalised(log_weights: Array) -> Array:
  """The weights (B, K) of these log-weights, of sum 1; equal ones where all are -inf."""
  alive = jnp.isfinite(jnp.max(log_weights, -1, keepdims=True))
  return jax.nn.softmax(jnp.where(alive, log_weights, 0), -1)


def ess(log_weights: Array) -> Array:
  """The effective number of particles, 1 / sum w^2 of the normalised weights: (B, K) -> (B,), 1 to K."""
  return 1 / jnp.sum(normalised(log_weights) ** 2, -1)


def log_mean(log_weights: Array) -> Array:
  """The log of the mean weight, (B, K) -> (B,): what resampling takes out, an estimate of the normalising constant."""
  return jax.nn.logsumexp(log_weights, -1) - jnp.log(log_weights.shape[-1])


def systematic(u: Array, log_weights: Array) -> Array:
  """Systematic resampling: places (B, K) int32 to copy from, rising in a row; particle k is copied K w_k times.

  The count of each is K w_k rounded down or up, its mean exact: ancestor j is the particle in which (j + u) / K falls
  on the scale of summed weights. One of weight 0 is never copied; equal weights change nothing.

  Args:
    u: (B,) uniform on [0, 1), one a sample.
    log_weights: (B, K), not normalised.
  """
  count = log_weights.shape[-1]
  return _found((jnp.arange(count) + u[:, None]) / count, log_weights)


def pick(u: Array, log_weights: Array) -> Array:
  """One particle a sample, drawn by its weight: the place (B,) int32 of the one in which u falls."""
  return _found(u[:, None], log_weights)[:, 0]


def _found(places: Array, log_weights: Array) -> Array:
  """Where places (B, n) of [0, 1] fall on the scale of summed weights."""

  def one(places: Array, weights: Array) -> Array:
    scale = jnp.cumsum(weights)
    scale = scale / scale[-1]
    last = jnp.searchsorted(scale, 1.0, side='left')  # rounding may put a place on the end of the scale
    return jnp.minimum(jnp.searchsorted(scale, places, side='right'), last).astype(jnp.int32)

  return jax.vmap(one)(places, normalised(log_weights))
