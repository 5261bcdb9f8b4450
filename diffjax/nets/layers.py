"""Layers with named weight axes: float32 weights, activations in `dtype`, statistics in float32."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

fan_avg = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
zeros = nn.initializers.zeros_init()
ones = nn.initializers.ones_init()
LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def named(init, *names) -> Callable[..., Any]:
  """An initialiser whose weight carries logical axis names (None: an axis nobody shards); `param` takes them off."""
  return nn.with_logical_partitioning(init, names)


# What the backward pass finds stored: a name a config may give, and the policy of jax.checkpoint.
REMAT = {
  True: None,
  'dots': jax.checkpoint_policies.dots_saveable,
  'dots_no_batch': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def rematted(module, policy, in_scan: bool = False):
  """The module class with its activations recomputed in the backward pass, but for what `policy`, of REMAT, stores.

  None or False: the class itself. True stores only the inputs, 'dots' the results of all matrix products,
  'dots_no_batch' those with weights alone, so that attention is computed again.
  """
  if policy in (None, False):
    return module
  return nn.remat(module, policy=REMAT[policy], prevent_cse=not in_scan)


class ShardedLayer(nn.Module):
  """The base of layers whose features a mesh may split.

  `logical_axes` names the features that come and those that go. `train.rules.Layout.activations` reads it and has them
  lie as the rule of that name says. A layer without it is left to XLA, which may split a product as its weight lies on
  fsdp and send activations to and fro instead of the weight.
  """

  logical_axes = ()  # no annotation: flax would make it the first field of every layer


class Dense(ShardedLayer):
  """A linear map over the last axis.

  x @ kernel [+ bias] over the last axis. `logical_axes` are those of the kernel; the bias has the last.
  """

  features: int
  logical_axes: tuple[str | None, str | None] = ('in', 'out')
  initial: Any = fan_avg
  dtype: Any = jnp.float32
  bias: bool = True
  initial_bias: Any = zeros

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', named(self.initial, *self.logical_axes), (x.shape[-1], self.features))
    out = x.astype(self.dtype) @ kernel.astype(self.dtype)
    if not self.bias:
      return out
    bias = self.param('bias', named(self.initial_bias, self.logical_axes[-1]), (self.features,))
    return out + bias.astype(self.dtype)


class Conv(ShardedLayer):
  """Convolution of (B, H, W, C) images with a size x size kernel; same-size, zeros outside the image, unless `stride`.

  With a stride it stays inside the image: n pixels become (n - size) / stride + 1.
  """

  logical_axes = ('in', 'out')
  features: int
  size: int = 3
  initial: Any = fan_avg
  dtype: Any = jnp.float32
  stride: int = 0
  initial_bias: Any = zeros

  @nn.compact
  def __call__(self, x):
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', named(self.initial, None, None, *self.logical_axes), shape).astype(self.dtype)
    bias = self.param('bias', named(self.initial_bias, 'out'), (self.features,)).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.size == 1:
      return x @ kernel[0, 0] + bias
    stride, padding = (self.stride, 'VALID') if self.stride else (1, 'SAME')
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=LAYOUT) + bias


def groups_of(channels: int) -> int:
  """The largest number of groups that divides `channels` and is at most min(channels // 4, 32), at least 1.

  The published rule is min(channels // 4, 32) itself, which does not divide every width (132 -> 33 -> 32 -> 22 here).
  """
  return next(g for g in range(max(1, min(channels // 4, 32)), 0, -1) if channels % g == 0)


class GroupNorm(nn.Module):
  """Group normalisation over space and the channels of a group.

  (x - mean) / sqrt(var + 1e-6) * scale + bias, mean and variance over space and the channels of a group.

  Sums over space first, channel by channel, and over the group afterwards: the image is read once, along its memory,
  and normalised by one multiply-add. Statistics in float32, result in `dtype`.   arXiv:1803.08494
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    scale = self.param('scale', named(ones, 'out'), (channels,))
    bias = self.param('bias', named(zeros, 'out'), (channels,))
    groups = groups_of(channels)
    space = tuple(range(1, x.ndim - 1))

    def over_group(per_channel):
      mean = per_channel.reshape(-1, groups, channels // groups).mean(-1)
      return jnp.repeat(mean, channels // groups, axis=-1)

    x = x.astype(jnp.float32)
    mean = over_group(x.mean(space))
    var = jnp.maximum(over_group(jnp.square(x).mean(space)) - jnp.square(mean), 0)
    gain = lax.rsqrt(var + 1e-6) * scale
    return (x * _lift(gain, x) + _lift(bias - mean * gain, x)).astype(self.dtype)


class LayerNorm(nn.Module):
  """Layer normalisation over the last axis.

  (x - mean) / sqrt(var + eps) over the last axis [* scale + bias]: statistics in float32, result in `dtype`.
  """

  eps: float = 1e-6
  affine: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
    if self.affine:
      scale = self.param('scale', named(ones, 'out'), (x.shape[-1],))
      x = x * scale + self.param('bias', named(zeros, 'out'), (x.shape[-1],))
    return x.astype(self.dtype)


class Dropout(nn.Module):
  """Each element zero with probability `rate`, the others divided by 1 - rate; the identity when key is None.

  key is a batch of keys: row i draws from its own, folded with the layer's path, so what a sample sees depends neither
  on the batch around it nor on the mesh. Two elements share one 32-bit draw; rate is rounded to a multiple of 2^-16.
  """

  rate: float

  def __call__(self, x, key=None):
    cut = round(self.rate * 65536)
    if key is None or cut == 0:
      return x
    layer = zlib.crc32('/'.join(self.path).encode())
    size = math.prod(x.shape[1:])

    def draw(k):
      words = jax.random.bits(jax.random.fold_in(k, layer), (-(-size // 2),), jnp.uint32)
      return lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size].reshape(x.shape[1:])

    keep = jax.vmap(draw)(key) >= cut
    return jnp.where(keep, x * jnp.asarray(65536 / (65536 - cut), x.dtype), 0)


def _lift(per_channel, x):
  return per_channel.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
