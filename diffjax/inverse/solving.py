"""Conjugate gradients, one system a sample: what an operator without a closed form is solved by."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.process import expand

__all__ = ['conjugate_gradients']


def conjugate_gradients(apply: Callable[[Array], Array], b: Array, steps: int) -> Array:
  """The solution of M x = b after so many steps from 0, M symmetric and positive semi-definite; b (B, ...).

  One system a sample, each with its own steps' lengths; of one whose b lies in the range of a singular M the solution
  of least norm. A sample that has converged stays where it is.   Hestenes and Stiefel 1952

  Args:
    apply: x -> M x of every sample, (B, ...) -> (B, ...).
    b: the right-hand sides (B, ...).
    steps: of the method; as many as M has distinct eigenvalues are exact but for rounding.
  """

  def dot(u: Array, v: Array) -> Array:
    return jnp.sum((u * v).reshape(len(u), -1), axis=1)

  enough = jnp.finfo(b.dtype).eps ** 2 * dot(b, b)

  def step(carry: tuple, _: None) -> tuple:
    x, residual, way, size = carry
    image = apply(way)
    bend = dot(way, image)
    going = (size > enough) & (bend > 0)
    far = jnp.where(going, size / jnp.where(going, bend, 1), 0)
    x, residual = x + expand(far, x) * way, residual - expand(far, x) * image
    after = dot(residual, residual)
    keep = jnp.where(going, after / jnp.where(going, size, 1), 0)
    return (x, residual, residual + expand(keep, x) * way, jnp.where(going, after, size)), None

  start = (jnp.zeros_like(b), b, b, dot(b, b))
  return jax.lax.scan(step, start, None, length=steps)[0][0]
