"""Self-attention over the pixels of an image."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from .layers import Dense, GroupNorm, named, zeros


def attend(q, k, v):
  """softmax(q k^T / sqrt(C)) v: (B, N, C) thrice -> (B, N, C). Logits and softmax in float32, weights in v's dtype."""
  logits = jnp.einsum('bnc,bmc->bnm', q, k, preferred_element_type=jnp.float32)
  weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1)
  return jnp.einsum('bnm,bmc->bnc', weights.astype(v.dtype), v)


class Attention(nn.Module):
  """(x + out(attend(q, k, v))) / sqrt 2 with q, k, v = 1x1 maps of the normalised image: one head, zero output map.

  x (B, H, W, C); the three maps are one weight (C, 3, C).   arXiv:2011.13456
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    batch, *space, channels = x.shape
    h = GroupNorm(self.dtype, name='norm')(x).reshape(batch, -1, channels)
    q, k, v = QKV(self.dtype, name='qkv')(h)
    h = Dense(channels, ('heads', 'out'), zeros, self.dtype, name='out')(attend(q, k, v))
    return (x + h.reshape(batch, *space, channels)) * 0.5**0.5


class QKV(nn.Module):
  """Queries, keys and values of (B, N, C) tokens, from one weight (C, 3, C), each of the three with its own fans."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    init = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform', in_axis=0, out_axis=2, batch_axis=1)
    kernel = self.param('kernel', named(init, 'in', None, 'heads'), (channels, 3, channels)).astype(self.dtype)
    bias = self.param('bias', named(zeros, None, 'heads'), (3, channels)).astype(self.dtype)
    qkv = x.astype(self.dtype) @ kernel.reshape(channels, -1) + bias.reshape(-1)
    return jnp.split(qkv, 3, axis=-1)
