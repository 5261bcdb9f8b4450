"""Distance covariance: 0 exactly where two random vectors are independent, in JAX, with gradients.

    dCov^2(z, s) = mean_ij A_ij B_ij,  A the distances |z_i - z_j|, B those of s, both centred

Double-centred it is biased up by some 1 / n; U-centred it is not.   Szekely, Rizzo and Bakirov 2007, 2014
"""

import jax.numpy as jnp
from jax import Array

__all__ = ['distance_correlation', 'distance_covariance']


def distance_covariance(z: Array, s: Array, *, unbiased: bool = False) -> Array:
  """dCov^2 of rows z (n, d) and s (n, e), (); negative now and then where it is unbiased."""
  a, b = (_centred(_distances(x), unbiased) for x in (z, s))
  n = len(z)
  return jnp.sum(a * b) / (n * (n - 3) if unbiased else n * n)


def distance_correlation(z: Array, s: Array, *, unbiased: bool = False) -> Array:
  """dCor, the root of dCov^2(z, s) / sqrt(dCov^2(z, z) dCov^2(s, s)), 0 where that is negative."""
  own = distance_covariance(z, z, unbiased=unbiased) * distance_covariance(s, s, unbiased=unbiased)
  share = distance_covariance(z, s, unbiased=unbiased) / jnp.sqrt(jnp.maximum(own, 1e-20))
  return jnp.sqrt(jnp.maximum(share, 0))


def _distances(x: Array) -> Array:
  square = jnp.sum((x[:, None] - x[None]) ** 2, -1)
  far = square > 1e-12  # the root has no slope at 0
  return jnp.where(far, jnp.sqrt(jnp.where(far, square, 1.0)), 0.0)


def _centred(d: Array, unbiased: bool) -> Array:
  n = len(d)
  if not unbiased:
    return d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()
  row, column = d.sum(1, keepdims=True) / (n - 2), d.sum(0) / (n - 2)
  centred = d - row - column + d.sum() / ((n - 1) * (n - 2))
  return centred * (1 - jnp.eye(n, dtype=d.dtype))
