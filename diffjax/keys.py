"""Random keys, one a sample, so that sample k is the same whatever batch, mesh or host draws it.

A *key batch* is a (B,) array of typed keys. Row i of it is fold_in(key, global index of sample i); every draw of the
library maps over it. A draw therefore never depends on how many other samples are in the batch or where they live.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Data, KeyBatch
from diffjax.errors import InputError

__all__ = ['seeded', 'check_seed', 'per_sample', 'numbered', 'split', 'fold', 'normal', 'uniform', 'bernoulli']

SEEDS = 2**32


def seeded(seed: int, field: str = 'seed') -> Array:
  """The typed key of a seed from 0 to 2^32 - 1; two seeds have two keys.

  Raises:
    InputError: another seed, of which `jax.random.key` would take the remainder.
  """
  check_seed(seed, field)
  return jax.random.key(seed)


def check_seed(seed: int, field: str = 'seed') -> None:
  """Raises InputError where `seeded` would."""
  if not 0 <= seed < SEEDS:
    raise InputError(f'{field}: got {seed}; allowed: a whole number from 0 to {SEEDS - 1}')


def per_sample(key: Array, n: int, start: int | Array = 0) -> Array:
  """Gives every sample a key of its own, fold_in(key, start + i) for i < n; a key batch (n,) is returned as it is.

  Raises:
    InputError: `key` is no typed key (made by `jax.random.key`), or a batch of another length.
  """
  if not (hasattr(key, 'dtype') and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
    raise InputError(f'key: got {type(key).__name__} without a key type; allowed: a typed key, jax.random.key(seed)')
  if key.ndim == 0:
    return numbered(key, start + jnp.arange(n))
  if key.shape != (n,):
    raise InputError(f'key: got a batch of shape {key.shape}; allowed: one key, or one a sample, shape ({n},)')
  return key


def numbered(key: Array, samples: Array) -> Array:
  """The key batch of the samples of these global indices (B,), in any order."""
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(samples)


def split(key_batch: KeyBatch, n: int) -> tuple[Array, ...]:
  """Splits every key of a batch: n independent key batches."""
  parts = jax.vmap(lambda k: jax.random.split(k, n))(key_batch)
  return tuple(parts[:, i] for i in range(n))


def fold(key_batch: KeyBatch, i: int | Array) -> Array:
  """The key batch of stream i, for example of row i of a solver."""
  return jax.vmap(lambda k: jax.random.fold_in(k, i))(key_batch)


def normal(key_batch: KeyBatch, like: Data) -> Any:
  """Standard normal draws with the shape and dtype of `like` (B, ...), a pytree of modalities allowed."""
  leaves, treedef = jax.tree.flatten(like)
  streams = [key_batch] if len(leaves) == 1 else split(key_batch, len(leaves))
  draw = jax.vmap(lambda k, x: jax.random.normal(k, x.shape, x.dtype))
  return jax.tree.unflatten(treedef, [draw(k, x) for k, x in zip(streams, leaves, strict=True)])


def uniform(key_batch: KeyBatch) -> Array:
  """One uniform draw on [0, 1) a sample, (B,)."""
  return jax.vmap(jax.random.uniform)(key_batch)


def bernoulli(key_batch: KeyBatch, p: float | Array) -> Array:
  """One draw a sample that is True with probability p, (B,)."""
  return uniform(key_batch) < p
