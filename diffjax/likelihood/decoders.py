"""The last term of a bound: the log-probability of the data given the least noisy point."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ['decoded']


def decoded(x0: Array, mean: Array, std: Any, levels: int | None, network: bool) -> Array:
  """The log-probability (B,) of x0 (B, ...) about `mean`, in nats.

      levels None    log N(x0; mean, std^2)
      network        log of the mass that N(mean, std^2) has between the neighbours' midpoints, the ends' to infinity
      else           log softmax over the levels of -(mean - level)^2 / 2 std^2, at x0's

  `levels` values lie evenly on [-1, 1].   arXiv:2006.11239 eq. 13, arXiv:2107.00630 app. B
  """
  if levels is None:
    each = jax.scipy.stats.norm.logpdf(x0, mean, std)
  elif network:
    half = 1 / (levels - 1)
    above = jnp.where(x0 > 1 - half, jnp.inf, (x0 + half - mean) / std)
    below = jnp.where(x0 < -1 + half, -jnp.inf, (x0 - half - mean) / std)
    each = _log_mass(below, above)
  else:
    values = jnp.linspace(-1, 1, levels, dtype=x0.dtype)
    log_p = jax.nn.log_softmax(-0.5 * ((mean[..., None] - values) / std) ** 2, axis=-1)
    index = jnp.round((x0 + 1) / 2 * (levels - 1)).astype(int)
    each = jnp.take_along_axis(log_p, index[..., None], -1)[..., 0]
  return jnp.sum(each.reshape(len(x0), -1), axis=-1)


def _log_mass(a: Array, b: Array) -> Array:
  """log(Phi(b) - Phi(a)), a < b, with the precision of the tail in which both lie."""
  flip = a > 0
  a, b = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
  low, high = jax.scipy.special.log_ndtr(a), jax.scipy.special.log_ndtr(b)
  floor = jnp.finfo(high.dtype).tiny
  return high + jnp.log(jnp.maximum(-jnp.expm1(jnp.minimum(low - high, 0)), floor))
