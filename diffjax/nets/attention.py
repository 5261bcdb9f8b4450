"""Self-attention, and the one place where hooks reach it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from .arguments import check
from .layers import Dense, GroupNorm, ShardedLayer, named, zeros
from .taps import tap

XLA, CUDNN = 'xla', 'cudnn'


class Attend(nn.Module):
  """Softmax attention in the implementation that was asked for; it holds no weights.

  softmax(q k^T / sqrt(d)) v: queries (B, N, H, d), keys and values (B, M, H, d) -> (B, N, H, d); no weights.

  `attention_impl` is 'xla' (logits and softmax in float32), 'cudnn' (the fused kernel: a GPU, bfloat16 or float16, no
  forward mode) or any function (q, k, v, mask=None), hashable since it is part of the network. mask, boolean and
  broadcast to (B, H, N, M), is True where a query may look. A hook of `Apply` takes the place of this call.
  """

  attention_impl: str | Callable = XLA

  @nn.compact
  def __call__(self, q, k, v, mask=None):
    if callable(self.attention_impl):
      return self.attention_impl(q, k, v, mask)
    if self.attention_impl == CUDNN:
      half = q.dtype in (jnp.bfloat16, jnp.float16)
      check('attention_impl', CUDNN, half, f"'{XLA}', or dtype bfloat16 or float16 in place of {q.dtype}")
    implementation: Any = self.attention_impl
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)


def check_attention_impl(impl: Any) -> None:
  """InputError unless `impl` is an implementation of `Attend`."""
  known = impl in (XLA, CUDNN) or callable(impl)
  check('attention_impl', impl, known, f"'{XLA}', '{CUDNN}' or a function (q, k, v, mask)")


class MultiHead(nn.Module):
  """Multi-head self-attention over tokens x (B, N, C).

  out(attend(q, k, v)) over the tokens x (B, N, C): `heads` heads of C / heads features each.

  One weight (C, 3, C) makes queries, keys and values. Tap: 'out', the result. Hooked under this module's path.
  """

  heads: int
  attention_impl: str | Callable = XLA
  bias: bool = True
  initial: Any = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    batch, n, channels = x.shape
    initial = self.initial or nn.initializers.xavier_uniform()
    split = (batch, n, self.heads, channels // self.heads)
    q, k, v = (a.reshape(split) for a in QKV(self.dtype, self.bias, initial, name='qkv')(x))
    h = Attend(self.attention_impl, name='attend')(q, k, v).reshape(batch, n, channels)
    h = Dense(channels, ('heads', 'out'), initial, self.dtype, name='out')(h)
    return tap(self, 'out', h)


def attend(q, k, v, mask=None):
  """Softmax attention of one head, written out.

  softmax(q k^T / sqrt(C)) v: (B, N, C) thrice -> (B, N, C). Logits and softmax in float32, weights in v's dtype.
  """
  logits = jnp.einsum('bnc,bmc->bnm', q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(logits if mask is None else jnp.where(mask, logits, -jnp.inf), axis=-1)
  return jnp.einsum('bnm,bmc->bnc', weights.astype(v.dtype), v)


def one_head(q, k, v, mask=None):
  """`attend` as an implementation of `Attend` for one head, without an axis of length 1 in the products."""
  mask = None if mask is None else jnp.broadcast_to(mask, (1,) * (4 - mask.ndim) + mask.shape)[:, 0]
  return attend(q[:, :, 0], k[:, :, 0], v[:, :, 0], mask)[:, :, None]


class Attention(nn.Module):
  """The attention block of the U-Net: one head over pixels, with a zero output map at the start.

  (x + out(attend(q, k, v))) / sqrt 2 with q, k, v = 1x1 maps of the normalised image: one head, zero output map.

  x (B, H, W, C); the three maps are one weight (C, 3, C). Tap: 'out', before the sum, (B, HW, C).   arXiv:2011.13456
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    batch, *space, channels = x.shape
    h = GroupNorm(self.dtype, name='norm')(x).reshape(batch, -1, channels)
    q, k, v = (a[:, :, None] for a in QKV(self.dtype, name='qkv')(h))
    h = Attend(one_head, name='attend')(q, k, v)[:, :, 0]
    h = Dense(channels, ('heads', 'out'), zeros, self.dtype, name='out')(h)
    h = tap(self, 'out', h)
    return (x + h.reshape(batch, *space, channels)) * 0.5**0.5


class QKV(ShardedLayer):
  """Queries, keys and values of (B, N, C) tokens, from one weight (C, 3, C), each of the three with its own fans.

  `initial`, if given, draws the weight as one matrix (C, 3C).
  """

  logical_axes = ('in', 'heads')
  dtype: Any = jnp.float32
  bias: bool = True
  initial: Any = None

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    apart = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform', in_axis=0, out_axis=2, batch_axis=1)
    initial = as_matrix(self.initial) if self.initial else apart
    read, write = self.logical_axes
    kernel = self.param('kernel', named(initial, read, None, write), (channels, 3, channels)).astype(self.dtype)
    qkv = jnp.einsum('bnc,ckd->bnkd', x.astype(self.dtype), kernel)  # as one matrix (C, 3C) it could not stay split
    if self.bias:
      qkv += self.param('bias', named(zeros, None, write), (3, channels)).astype(self.dtype)
    return tuple(qkv[:, :, i] for i in range(3))


def as_matrix(initial):
  """An initialiser of (C, 3, C) weights that draws them as (C, 3C)."""
  return lambda key, shape, dtype=jnp.float32: initial(key, (shape[0], shape[1] * shape[2]), dtype).reshape(shape)
