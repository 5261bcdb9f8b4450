"""The trace of a Jacobian, exact or by random probes, one a sample; by jvps alone.

exact                 sum_i e_i . J e_i                      as many jvps as dimensions
rademacher, gaussian  mean over m probes of v . J v          unbiased, E v v^T = I
hutchpp               tr Q^T J Q + 3/m tr G^T P J P G        Q = qr(J S), P = I - Q Q^T; S, G of m/3 columns each
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.errors import InputError

__all__ = ['NAMES', 'check', 'cost', 'drawn', 'of_identity', 'with_trace']

NAMES = ('exact', 'rademacher', 'gaussian', 'hutchpp')
TOGETHER = 16  # columns of an exact trace that are pushed at once


def check(name: str, probes: int, dimensions: int) -> None:
  """Raises InputError for an unknown estimator, or a number of probes that it cannot use."""
  if name not in NAMES:
    raise InputError(f'divergence: got {name!r}; allowed: {", ".join(NAMES)}')
  if probes < 1:
    raise InputError(f'probes: got {probes}; allowed: a whole number of at least 1')
  if name == 'hutchpp' and (probes % 3 or probes // 3 >= dimensions):
    raise InputError(f'probes: got {probes} with hutchpp in {dimensions} dimensions; allowed: a multiple of 3 below '
                     f'{3 * dimensions}')  # fmt: skip


def cost(name: str, probes: int, dimensions: int) -> int:
  """The jvps of one trace."""
  return dimensions if name == 'exact' else probes


def drawn(name: str, probes: int, key_batch: KeyBatch | None, x: Array) -> Array:
  """The probes of each sample, (m, B, d), of x (B, d); none for an exact trace."""
  if name == 'exact' or key_batch is None:
    return jnp.zeros((0, *x.shape), x.dtype)
  rademacher = jax.vmap(lambda key, x: jax.random.rademacher(key, x.shape, x.dtype))
  draw = keys.normal if name == 'gaussian' else rademacher
  count = 2 * probes // 3 if name == 'hutchpp' else probes
  return jnp.stack([draw(keys.fold(key_batch, i), x) for i in range(count)])


def of_identity(name: str, probes: Array) -> Array | int:
  """What the estimate says of the identity's trace: the dimensions, but for Gaussian probes, by |v|^2 (B,).

  With it a J + b I is estimated as what it is, and not as two traces whose errors do not cancel.
  """
  return jnp.mean(jnp.sum(probes**2, -1), 0) if name == 'gaussian' else probes.shape[-1]


def with_trace(name: str, f: Callable[[Array], tuple[Array, Any]], x: Array, probes: Array) -> tuple[Any, Array]:
  """What f says at x (B, d), a pair, and the trace (B,) of the Jacobian of its first part."""
  out, whole = jax.linearize(f, x)
  push = lambda v: whole(v)[0]  # noqa: E731
  if name == 'exact':
    column = lambda i: push(jnp.zeros_like(x).at[:, i].set(1))[:, i]  # noqa: E731
    return out, jnp.sum(jax.lax.map(column, jnp.arange(x.shape[1]), batch_size=TOGETHER), axis=0)
  if name == 'hutchpp':
    return out, _hutchpp(jax.vmap(push), *jnp.split(probes, 2))
  return out, jnp.mean(jnp.sum(probes * jax.vmap(push)(probes), axis=-1), axis=0)


def _hutchpp(push: Callable[[Array], Array], s: Array, g: Array) -> Array:
  """`push` takes columns (m/3, B, d); what they span is traced exactly, the rest by probes."""
  q = jnp.moveaxis(jnp.linalg.qr(jnp.moveaxis(push(s), 0, -1))[0], -1, 0)

  def rest(v: Array) -> Array:
    inside = jnp.einsum('kbd,mbd->kmb', q, v, precision='highest')
    return v - jnp.einsum('kmb,kbd->mbd', inside, q, precision='highest')

  g = rest(g)
  return jnp.sum(q * push(q), (0, 2)) + jnp.sum(g * rest(push(g)), (0, 2)) / len(g)
