"""EDM2's U-Net: no normalisation of groups, no biases; every operation keeps the magnitude of what it is given."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from . import resample as resampling
from .apply import Apply
from .arguments import activation_dtype, check, check_unet, check_unet_image, is_count
from .attention import Attend, check_attention_impl
from .layers import Dropout, ShardedLayer, rematted, zeros
from .magnitude import MPConv, MPDense, MPFourier, MPLabel, mp_cat, mp_silu, mp_sum, unit
from .taps import tap

__all__ = ['EDM2', 'edm2']

SIZES = {'XXS': 64, 'XS': 128, 'S': 192, 'M': 256, 'L': 320, 'XL': 384, 'XXL': 448}  # width
RESIDUAL, LABEL, SKIP = 0.3, 0.5, 0.5  # the share of the branch, the label and the skip in their mp_sum or mp_cat
CLIP = 256.0  # of activations, far from what occurs, for half precision


def edm2(
  size: str = 'S',
  *,
  width: int | None = None,
  channel_mult: tuple[int, ...] = (1, 2, 3, 4),
  blocks_per_level: int = 3,
  attention: tuple[int, ...] = (16, 8),
  head_dim: int = 64,
  dropout: float = 0.0,
  classes: int = 0,
  out_channels: int | None = None,
  attention_impl: str | Callable = 'xla',
  dtype: Any = 'float32',
  remat: bool | str | None = None,
) -> Apply:
  """Makes an `EDM2` behind the interface of networks, of a published size or of another width.

  Args:
    size: the published width: 'XXS', 'XS', 'S', 'M', 'L', 'XL' or 'XXL'.
    width: channels at the full resolution, in place of those of `size`.
    channel_mult: the channels of each level, the full resolution first, as multiples of `width`.
    blocks_per_level: residual blocks a level on the way down; one more on the way up.
    attention: heights at which the blocks attend; one that never occurs is refused when the shapes are known.
    head_dim: features of an attention head; divides `width`.
    dropout: the probability that an activation of a block is dropped in training; 0.1 as published from 'M' upwards.
    classes: the number of classes, 0 for none.
    out_channels: None for as many as come in; twice as many where variances are learned.
    attention_impl: the implementation of attention, see `attention.Attend`.
    dtype: of the activations: 'float32', 'bfloat16', 'float16' or 'float64'.
    remat: what the backward pass computes again, see `layers.rematted`; None nothing.

  Raises:
    InputError: an argument out of its range.
  """
  check('size', size, size in SIZES, ', '.join(map(repr, SIZES)))
  width = SIZES[size] if width is None else width
  channel_mult, attention = tuple(channel_mult), tuple(attention)
  check('width', width, is_count(width), 'a positive integer')
  check_unet(
    channel_mult=channel_mult, blocks_per_level=blocks_per_level, attention=attention, dropout=dropout,
    classes=classes, out_channels=out_channels, remat=remat,
  )  # fmt: skip
  divides = is_count(head_dim) and width % head_dim == 0
  check('head_dim', head_dim, divides, f'features of a head, which divide the width {width}')
  check_attention_impl(attention_impl)
  return Apply(
    EDM2(
      width=width,
      channel_mult=channel_mult,
      blocks_per_level=blocks_per_level,
      attention=attention,
      head_dim=head_dim,
      dropout=float(dropout),
      classes=classes,
      out_channels=out_channels,
      attention_impl=attention_impl,
      dtype=activation_dtype(dtype),
      remat=remat or None,
    )
  )


class EDM2(nn.Module):
  """The magnitude-preserving U-Net of EDM2, from a noisy image and its noise level to an image of the same size.

  (B, H, W, C) -> (B, H, W, out_channels or C) float32, exactly 0 at init.

  h   = conv [x, 1]: the channel of ones stands in for every bias
  e   = mp_silu mp_sum(W mp_fourier(t), W' label)           (null label: zeros for W' label; classes=0: no mp_sum)
  down: as in `UNet`: `blocks_per_level` encoder blocks a level, attention where the height is in `attention`; a block
        that halves
  mid:  two decoder blocks, the first with attention
  up:   blocks_per_level + 1 decoder blocks a level, each on mp_cat(h, the kept h); a block that doubles
  out:  g conv h                                                     (g: a trained number that starts at zero)

  x (B, H, W, C) of unit variance, H and W divisible by 2^(len(channel_mult) - 1); t (B,), the embedding coordinate of
  order one, log(sigma) / 4; cond labels (B,) in 0 .. classes or None; key None or a batch of B keys for dropout.
  InputError for an image that does not halve, an attention resolution that never occurs, or labels for a network
  without classes.

  Weights, their norms, the embedding, softmax and output are float32, other activations `dtype`. Train with weights
  kept at unit mean square, `diffjax.train.forced`. `attention_impl` as in `Attend`; `remat` as in `layers.rematted`.
  Hooks: 'down{i}_{j}/attention', 'up{i}_{j}/attention', 'middle_0/attention'.
  Taps: 'in', 'down{i}_{j}', 'down{i}_half', 'middle', 'up{i}_{j}', 'up{i}_double', 'head'; hooks' names + '/out'.
  arXiv:2312.02696 config G, figure 21
  """

  width: int
  channel_mult: tuple[int, ...] = (1, 2, 3, 4)
  blocks_per_level: int = 3
  attention: tuple[int, ...] = (16, 8)
  head_dim: int = 64
  dropout: float = 0.0
  classes: int = 0
  out_channels: int | None = None
  attention_impl: str | Callable = 'xla'
  dtype: Any = jnp.float32
  remat: bool | str | None = None

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    self._check_input(x, cond)
    e = self._embedding(x.shape[0], t, cond)
    rows, widths, last = x.shape[1], [m * self.width for m in self.channel_mult], len(self.channel_mult) - 1
    residual = rematted(Block, self.remat)

    def block(h, name, features, encoder, attend=False, change=None):
      heads = features // self.head_dim if attend else 0
      made = residual(features, encoder, heads, self.attention_impl, self.dropout, change, self.dtype, name=name)
      return made(h, e, key)

    def keep(h, name):
      return tap(self, name, h)

    halve, double = resampling.nearest
    h = jnp.concatenate([x.astype(self.dtype), jnp.ones((*x.shape[:-1], 1), self.dtype)], -1)
    h = keep(MPConv(self.width, dtype=self.dtype, name='in')(h), 'in')
    skips = [h]
    for i, features in enumerate(widths):
      for j in range(self.blocks_per_level):
        h = keep(block(h, f'down{i}_{j}', features, True, rows >> i in self.attention), f'down{i}_{j}')
        skips.append(h)
      if i < last:
        h = keep(block(h, f'down{i}_half', features, True, change=halve), f'down{i}_half')
        skips.append(h)

    h = block(h, 'middle_0', widths[-1], False, attend=True)
    h = keep(block(h, 'middle_1', widths[-1], False), 'middle')

    for i, features in reversed(list(enumerate(widths))):
      for j in range(self.blocks_per_level + 1):
        h = mp_cat(h, skips.pop(), SKIP)
        h = keep(block(h, f'up{i}_{j}', features, False, rows >> i in self.attention), f'up{i}_{j}')
      if i > 0:
        h = keep(block(h, f'up{i}_double', features, False, change=double), f'up{i}_double')

    h = tap(self, 'head', h)
    gain = self.param('gain', zeros, ())
    return MPConv(self.out_channels or x.shape[-1], dtype=self.dtype, name='out')(h, gain).astype(jnp.float32)

  def _embedding(self, batch, t, cond):
    size = self.width * max(self.channel_mult)
    e = MPFourier(self.width, name='fourier')(jnp.broadcast_to(t, (batch,)))
    e = MPDense(size, ('in', 'embed'), name='time')(e)
    if self.classes:
      e = mp_sum(e, MPLabel(self.classes, size, name='label')(cond, batch), LABEL)
    return mp_silu(e)

  def _check_input(self, x, cond):
    check_unet_image(x, self.channel_mult, self.attention)
    check('cond', 'labels', self.classes or cond is None, 'None, as the network has classes=0')


class Block(nn.Module):
  """EDM2's block: a magnitude-preserving residual branch, then attention where there is any.

  mp_sum(x, y, .3), y = conv drop mp_silu((1 + g W e) conv mp_silu x); then mp_sum(x, attention(x), .3); clipped.

  An encoder block begins with x <- unit(skip R x) over the channels; a decoder block with x <- R x, and sums skip x.
  skip is a 1x1 conv where the channels change, else nothing; R halves or doubles; g is a number that starts at zero.
  x (B, H, W, C); e (B, E) float32 after its mp_silu; no attention where heads = 0.
  """

  features: int
  encoder: bool
  heads: int = 0
  attention_impl: str | Callable = 'xla'
  dropout: float = 0.0
  change: Callable | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, e, key=None):
    skip = (lambda x: x) if x.shape[-1] == self.features else MPConv(self.features, 1, self.dtype, name='skip')
    x = self.change(x) if self.change else x
    x = Unit(name='unit')(skip(x)) if self.encoder else x
    y = MPConv(self.features, dtype=self.dtype, name='conv_0')(mp_silu(x))
    c = 1 + MPDense(self.features, ('embed', 'out'), name='time')(e, self.param('gain', zeros, ()))
    y = mp_silu(y * c[:, None, None].astype(self.dtype))
    y = MPConv(self.features, dtype=self.dtype, name='conv_1')(Dropout(self.dropout, name='dropout')(y, key))
    x = mp_sum(x if self.encoder else skip(x), y, RESIDUAL)
    if self.heads:
      x = mp_sum(x, CosineAttention(self.heads, self.attention_impl, self.dtype, name='attention')(x), RESIDUAL)
    return jnp.clip(x, -CLIP, CLIP)


class Unit(ShardedLayer):
  """`unit` over the channels, as a layer: a mesh that splits them brings them together first, as for a linear map.

  Left split, XLA of jax 0.10 (Shardy) gets the gradient of what lies before it wrong; those of 0.8 and 0.11 do not.
  """

  logical_axes = ('in', 'in')

  def __call__(self, x):
    return unit(x)


class CosineAttention(nn.Module):
  """Cosine attention over pixels: queries, keys and values of unit mean square.

  out(attend(q, k, v)) over pixels, each of q, k and v of unit mean square a head.

  x (B, H, W, C). The weight of q, k and v is (C, 3C), its outputs in the order (head, feature, which of the three).
  """

  heads: int
  attention_impl: str | Callable = 'xla'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    batch, *space, channels = x.shape
    h = MPDense(3 * channels, ('in', 'heads'), self.dtype, name='qkv')(x.reshape(batch, -1, channels))
    h = unit(h.reshape(batch, -1, self.heads, channels // self.heads, 3), -2)
    h = Attend(self.attention_impl, name='attend')(*(h[..., i] for i in range(3))).reshape(batch, -1, channels)
    h = MPDense(channels, ('heads', 'out'), self.dtype, name='out')(h)
    h = tap(self, 'out', h)
    return h.reshape(batch, *space, channels)
