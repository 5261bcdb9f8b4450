"""Denoisers that know the full covariance of x0 given x_t: it is the Jacobian of their own prediction."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, cost
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand
from diffjax.pytree import PyTree

__all__ = ['with_covariance']

DENSE = 64  # elements of an example up to which the whole matrix is made
BLIND = 1e3  # sigma / alpha above which float32 predictions of x0 say nothing about its spread


def with_covariance(denoise: Denoise, size: int, products: int = 10) -> 'WithCovariance':
  """The denoiser with `aux['covariance']`, the law of x0 about its prediction, for `solvers.full_dpm`.

  Cov(x0 | x_t) = (sigma^2 / alpha) J,    J = d x0_hat / d x_t   (Tweedie's second-order formula)

  No head and no training: every product C v is one Jacobian-vector product of the denoiser. Up to 64 elements the
  matrix is made in full; above, square roots act through a Krylov space of `products` of them (Lanczos), exact where
  C has so many different eigenvalues. An estimate that is not symmetric is symmetrised, eigenvalues below 0 are 0.

  arXiv:2206.07309 sec. 3; the Jacobian form is derived

  Args:
    denoise: what is asked for predictions.
    size: elements of one example.
    products: of the Krylov space.

  Raises:
    InputError: size or products is no positive number; when run, x of another size or of several modalities.
  """
  for field, value in (('size', size), ('products', products)):
    if not (isinstance(value, int | np.integer) and value >= 1):
      raise InputError(f'{field}: got {value!r}; allowed: a whole number of at least 1')
  return WithCovariance(denoise, size=int(size), products=int(products))


class WithCovariance(Transform):
  """Made by `with_covariance`."""

  size: int = struct.field(pytree_node=False, kw_only=True)
  products: int = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if not isinstance(x, jax.Array) or x[0].size != self.size:
      sizes = [leaf[0].size for leaf in jax.tree.leaves(x)]
      raise InputError(f'x: got modalities of {sizes} elements; allowed: one of {self.size}')
    pred = self.denoise(x, t, cond, memory)
    aux = pred.aux if isinstance(pred.aux, dict) else {}
    known = Covariance(self.denoise, x, t, cond, memory, products=self.products)
    return pred._replace(aux=aux | {'covariance': known})

  def cost(self, t: float) -> int:
    """A forward, and one more a Jacobian-vector product."""
    return cost(self.denoise, t) * (1 + (self.size if self.size <= DENSE else self.products))


class Covariance(PyTree):
  """C = (sigma^2 / alpha) J at the points x (B, ...), as the map v -> C v; 0 where alpha is."""

  denoise: Any
  x: Array
  t: Time
  cond: Any
  memory: Any
  products: int = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, v: Array) -> Array:
    """C v for v like x."""
    alpha, sigma = self.denoise.process.schedule(jnp.asarray(self.t))
    blind = sigma > BLIND * alpha
    scale = jnp.where(blind, 0, sigma**2 / jnp.where(blind, 1, alpha))
    pushed = jax.jvp(lambda x: self.denoise(x, self.t, self.cond, self.memory).x0, (self.x,), (v,))[1]
    return expand(scale, v) * pushed

  def matrix(self) -> Array:
    """C, symmetrised: (B, d, d)."""
    b, d = self.x.shape[0], self.x[0].size
    column = lambda e: self(jnp.broadcast_to(e, (b, d)).reshape(self.x.shape)).reshape(b, d)  # noqa: E731
    c = jax.lax.map(column, jnp.eye(d, dtype=self.x.dtype))  # (d, B, d): column by column
    return (jnp.moveaxis(c, 0, 1) + jnp.moveaxis(c, 0, 2)) / 2

  def apply(self, f: Callable[[Array], Array], z: Array) -> Array:
    """f(C) z for a function f of its eigenvalues (B, k), which are handed to it from 0 up."""
    flat = z.reshape(z.shape[0], -1)
    if flat.shape[1] <= DENSE:
      return _of_matrix(f, self.matrix(), flat).reshape(z.shape)
    length = jnp.linalg.norm(flat, axis=1)
    basis, small = self._krylov(flat / length[:, None])
    first = jnp.zeros(small.shape[:2], z.dtype).at[:, 0].set(length)
    return _einsum('bkd,bk->bd', basis, _of_matrix(f, small, first)).reshape(z.shape)

  def _krylov(self, start: Array) -> tuple[Array, Array]:
    """An orthonormal basis (B, k, d) of v, C v, C^2 v, ..., and C in it, symmetrised (B, k, k)."""
    b, d = start.shape
    k = min(self.products, d)

    def grow(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
      basis, small = carry
      new = self(basis[:, j].reshape(self.x.shape)).reshape(b, d)
      small = small.at[:, :, j].set(_einsum('bkd,bd->bk', basis, new))
      for _ in range(2):  # once leaves rounding along the basis
        new = new - _einsum('bkd,bk->bd', basis, _einsum('bkd,bd->bk', basis, new))
      length = jnp.linalg.norm(new, axis=1, keepdims=True)
      tiny = jnp.finfo(new.dtype).eps * jnp.max(jnp.abs(small), axis=(1, 2))[:, None]
      new = jnp.where(length > 4 * tiny, new / jnp.where(length > 0, length, 1), 0)  # the space is complete
      return basis.at[:, j + 1].set(new), small

    basis = jnp.zeros((b, k + 1, d), start.dtype).at[:, 0].set(start)
    basis, small = jax.lax.fori_loop(0, k, grow, (basis, jnp.zeros((b, k + 1, k), start.dtype)))
    small = small[:, :k]
    upper = jnp.triu(small)  # what is below was written before its row's vector was there
    return basis[:, :k], upper + jnp.swapaxes(jnp.triu(small, 1), 1, 2)


def _of_matrix(f: Callable[[Array], Array], c: Array, z: Array) -> Array:
  """f(C) z by the eigenvectors of C (B, d, d), f handed eigenvalues of at least 0."""
  values, vectors = jnp.linalg.eigh(c)
  return _einsum('bij,bj,bkj,bk->bi', vectors, f(jnp.maximum(values, 0)), vectors, z)


def _einsum(rule: str, *operands: Array) -> Array:
  return jnp.einsum(rule, *operands, precision='highest')
