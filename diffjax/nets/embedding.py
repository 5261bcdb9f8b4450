"""Numbers and labels as vectors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError

from .layers import ShardedLayer, named

__all__ = ['sincos', 'cossin', 'gaussian_fourier', 'waves', 'moments', 'perturbed', 'Label']


CEP = 0x5E9  # the stream of a sample's key that perturbs its condition


def sincos(t: jax.Array, size: int) -> jax.Array:
  """The sinusoidal embedding of time in the order of DDPM, all sines first.

  (sin(t w_i), cos(t w_i)), w_i = 10000^(-i / (size/2 - 1)), i = 0 .. size/2 - 1: all sines first, the order of DDPM.

  t (B,) in 0 .. 1000 (fractions allowed), or a log-snr coordinate of order one; result (B, size), float32 always, as
  bfloat16 holds 1000 t to 4 only. InputError unless size is even and at least 4.   arXiv:2006.11239
  """
  if size % 2 or size < 4:
    raise InputError(f'size: got {size}; allowed for a sine-cosine embedding: even, at least 4')
  return waves(t, 10000.0 ** (-np.arange(size // 2) / (size // 2 - 1)))


def cossin(t: jax.Array, size: int) -> jax.Array:
  """The sinusoidal embedding of time in the order of DiT, all cosines first.

  (cos(t w_i), sin(t w_i)), w_i = 10000^(-i / (size/2)), i = 0 .. size/2 - 1: all cosines first.

  The order and the frequencies of DiT and U-ViT, which differ from DDPM's (`sincos`). t (B,) -> (B, size), float32.
  InputError unless size is even.   arXiv:2212.09748, arXiv:2209.12152
  """
  if size % 2:
    raise InputError(f'size: got {size}; allowed for a cosine-sine embedding: even')
  return jnp.roll(waves(t, 10000.0 ** (-np.arange(size // 2) / (size // 2))), size // 2, axis=-1)


def gaussian_fourier(u: jax.Array, size: int, scale: float = 16.0, seed: int = 0) -> jax.Array:
  """Random Fourier features of time, fixed by `seed` and never trained.

  (sin(2 pi W u), cos(2 pi W u)), W ~ N(0, scale^2) of `size` numbers fixed by `seed`, never trained.

  u (B,), usually log sigma; result (B, 2 size), float32.   NCSN++, arXiv:2011.13456 appendix C
  """
  return waves(u, 2 * np.pi * scale * np.random.default_rng(seed).standard_normal(size))


def waves(t: jax.Array, frequencies) -> jax.Array:
  """Sines and cosines of time at given frequencies.

  (sin(t w_i), cos(t w_i)) for given frequencies w (n,): (B,) -> (B, 2n), float32.
  """
  angle = jnp.asarray(t, jnp.float32)[..., None] * jnp.asarray(frequencies, jnp.float32)
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def moments(t: jax.Array, batch: int, times: int) -> tuple[jax.Array, ...]:
  """The coordinates that a network of so many times is told, (B,) each; one alone, () or (B,), stands for all of them.

  Raises:
    InputError: another number of coordinates than one or `times`.
  """
  t = jnp.asarray(t)
  told = t.shape[1] if t.ndim == 2 else 1
  if told not in (1, times):
    raise InputError(f't: got {told} coordinates a sample; allowed: one, or {times}, the times of the network')
  parts = tuple(t[:, i] for i in range(told)) if t.ndim == 2 else (jnp.broadcast_to(t, (batch,)),)
  return parts * (times // told)


def perturbed(e: jax.Array, gamma: float, key: jax.Array | None) -> jax.Array:
  """Condition embeddings (B, D) with noise, e + gamma N(0, I / D), a draw of each key; themselves where key is None.

  Of a model that is linear in the embedding this is a ridge: it shrinks what classes differ by to 1 / (1 + gamma^2),
  and widens each by what it takes away.   arXiv:2405.20494
  """
  if key is None or not gamma:
    return e
  draw = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, CEP), e.shape[1:], e.dtype))
  return e + gamma / e.shape[-1] ** 0.5 * draw(key)


class Label(ShardedLayer):
  """Row cond[i] of a trained table of classes + 1 rows; the last is the null label, taken when cond is None.

  cond (B,) integers in 0 .. classes; `batch` is B. Result (B, size). Rows are drawn from N(0, std^2).
  With `perturb` and keys (B,), those of training, rows have noise (`perturbed`).
  `logical_axes` are the table's: ('label', 'out') where the row is a token, which no mesh axis splits.
  """

  classes: int
  size: int
  dtype: Any = jnp.float32
  std: float = 1.0
  logical_axes: tuple[str, str] = ('label', 'embed')
  perturb: float = 0.0

  @nn.compact
  def __call__(self, cond, batch: int, key=None):
    table = self.param(
      'table', named(nn.initializers.normal(self.std), *self.logical_axes), (self.classes + 1, self.size)
    )
    labels = jnp.full((batch,), self.classes) if cond is None else jnp.asarray(cond)
    return perturbed(jnp.take(table, labels, axis=0).astype(self.dtype), self.perturb, key)
