"""The DDPM++ / NCSN++ U-Net: BigGAN residual blocks, attention at chosen resolutions."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from . import resample as resampling
from .apply import Apply
from .arguments import activation_dtype, check, check_times, check_unet, check_unet_image, is_count
from .attention import Attention
from .embedding import Label, gaussian_fourier, moments, sincos
from .inputs import folded, told, unfolded
from .layers import Conv, Dense, Dropout, GroupNorm, rematted, zeros
from .taps import tap

__all__ = ['UNet', 'unet']

RESAMPLE = resampling.__all__
EMBEDDING = ('sincos', 'fourier')


def unet(
  width: int,
  *,
  channel_mult: tuple[int, ...] = (1, 2, 2, 2),
  blocks_per_level: int = 4,
  attention: tuple[int, ...] = (16,),
  dropout: float = 0.0,
  classes: int = 0,
  resample: str = 'nearest',
  embedding: str = 'sincos',
  progressive: bool = False,
  out_channels: int | None = None,
  augment: int = 0,
  dtype: Any = 'float32',
  remat: bool | str | None = None,
  times: int = 1,
) -> Apply:
  """Makes a `UNet` behind the interface of networks: DDPM++ by default.

  NCSN++ has resample='fir', embedding='fourier' and progressive=True.

  Args:
    width: channels at the full resolution where its multiplier is 1; even, at least 4.
    channel_mult: the channels of each level, the full resolution first, as multiples of `width`.
    blocks_per_level: residual blocks a level on the way down; one more on the way up.
    attention: heights at which the blocks attend; one that never occurs is refused when the shapes are known.
    dropout: the probability that an activation of a block is dropped in training.
    classes: the number of classes, 0 for none.
    resample: how blocks halve and double: 'nearest' or 'fir'.
    embedding: of time: 'sincos' or 'fourier'.
    progressive: whether the image, halved, enters at every level; with resample='fir'.
    out_channels: None for as many as come in; twice as many where variances are learned.
    augment: numbers of an augmentation label, 0 for none.
    dtype: of the activations: 'float32', 'bfloat16', 'float16' or 'float64'.
    remat: what the backward pass computes again, see `layers.rematted`; None nothing.
    times: 2 for a network that is told where a jump begins and where it ends.

  Raises:
    InputError: an argument out of its range.
  """
  channel_mult, attention = tuple(channel_mult), tuple(attention)
  check('width', width, is_count(width) and width % 2 == 0 and width >= 4, 'an even integer, at least 4')
  check_unet(
    channel_mult=channel_mult, blocks_per_level=blocks_per_level, attention=attention, dropout=dropout,
    classes=classes, out_channels=out_channels, remat=remat,
  )  # fmt: skip
  check('resample', resample, resample in RESAMPLE, ' or '.join(map(repr, RESAMPLE)))
  check('embedding', embedding, embedding in EMBEDDING, ' or '.join(map(repr, EMBEDDING)))
  check('progressive', progressive, not progressive or resample == 'fir', "False, or True with resample='fir'")
  check_times(times)
  check('augment', augment, augment == 0 or is_count(augment), 'the numbers of an augmentation label, 0 for none')
  return Apply(
    UNet(
      width=width,
      channel_mult=channel_mult,
      blocks_per_level=blocks_per_level,
      attention=attention,
      dropout=float(dropout),
      classes=classes,
      resample=resample,
      embedding=embedding,
      progressive=bool(progressive),
      out_channels=out_channels,
      augment=augment,
      dtype=activation_dtype(dtype),
      remat=remat or None,
      times=times,
    )
  )


class UNet(nn.Module):
  """A U-Net from a noisy image and its noise level to an image of the same size.

  (B, H, W, C) -> (B, H, W, out_channels or C) float32, exactly 0 at init.

  h   = conv(x), temb = Dense(4w) silu (Dense(4w) (embedded(t) [+ W augment]) [+ Dense_0 embedded(s)]) [+ label row]
  down: at each level `blocks_per_level` residual blocks of channel_mult[i] * width channels, attention after every one
        where the height is in `attention`; then a residual block that halves, except at the last level. Every h is
        kept. With `progressive`, h <- p <- (conv' p + h) / sqrt 2 at each halving: conv' blurs and strides by 2, p
        begins as x.
  mid:  residual, attention, residual
  up:   at each level blocks_per_level + 1 residual blocks, each on [h, the kept h]; attention once, after the last;
    then a
        residual block that doubles, except at the first level
  out:  conv_0 silu GN h                                            (conv_0: starts at zero)

  x (B, H, W, C), H and W divisible by 2^(len(channel_mult) - 1); t (B,), the embedding coordinate, or with times=2
  (t, s) (B, 2), from where to where a jump leads (t alone is both; Dense_0 starts at zero, so that s does); cond
  labels (B,) in 0 .. classes or None, or a dict of such labels as 'label', of 'augment' (B, augment), what was done to
  the clean images (zeros, nothing, without it), and of 'source' (B, H, W, any), which is read beside x; key None or a
  batch of B keys for dropout. Clips (B, F, H, W, C) are read, and returned, with their frames as channels. InputError
  for an image that does not halve, an attention resolution that never occurs, or a label of either kind for a network
  without. embedded(t) is `sincos` of t to w numbers, or with embedding 'fourier' `gaussian_fourier` of 4 t to 2w: of
  log(sigma / alpha) where t is a quarter of that, as processes timed by their noise and kind 'edm' hand over.
  Weights, statistics, softmax and output are float32, other activations `dtype`; `remat` recomputes every block in
  the backward pass (`layers.rematted`). Hooks: 'middle_attention', 'down{i}_{j}_attention', 'up{i}_{j}_attention'.
  Taps: 'in', 'down{i}_{j}', 'down{i}_half', 'middle', 'up{i}_{j}', 'up{i}_double', 'head'; hooks' names + '/out'.
  arXiv:2011.13456 appendix H, arXiv:2206.00364 appendix F.2
  """

  width: int
  channel_mult: tuple[int, ...] = (1, 2, 2, 2)
  blocks_per_level: int = 4
  attention: tuple[int, ...] = (16,)
  dropout: float = 0.0
  classes: int = 0
  resample: str = 'nearest'
  embedding: str = 'sincos'
  progressive: bool = False
  out_channels: int | None = None
  augment: int = 0
  dtype: Any = jnp.float32
  remat: bool | str | None = None
  times: int = 1
  reads_source = True

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    label, augment, source = told(cond)[:3]
    frames, channels = x.shape[1] if x.ndim == 5 else 0, self.out_channels or x.shape[-1]
    if frames:
      x, channels = folded(x), self.out_channels or frames * channels
    if source is not None:
      x = jnp.concatenate([x, source.astype(x.dtype)], -1)
    self._check_input(x, label, augment)
    residual, attention = rematted(Residual, self.remat), rematted(Attention, self.remat)
    temb = nn.silu(self._embedding(x.shape[0], t, label, augment))  # every block starts with silu(temb): once for all

    def block(h, name, features, resample=None):
      return residual(features, self.dropout, resample, self.dtype, name=name)(h, temb, key)

    def attend(h, name):
      return attention(self.dtype, name=name + '_attention')(h)

    def keep(h, name):
      tap(self, name, h)
      return h

    halve, double = getattr(resampling, self.resample)
    h = keep(Conv(self.width, dtype=self.dtype, name='in')(x), 'in')
    skips, last, pyramid = [h], len(self.channel_mult) - 1, x
    for i, multiplier in enumerate(self.channel_mult):
      for j in range(self.blocks_per_level):
        h = block(h, f'down{i}_{j}', multiplier * self.width)
        h = attend(h, f'down{i}_{j}') if h.shape[1] in self.attention else h
        skips.append(keep(h, f'down{i}_{j}'))
      if i < last:
        h = block(h, f'down{i}_half', h.shape[-1], halve)
        if self.progressive:
          half = Conv(h.shape[-1], dtype=self.dtype, stride=2, name=f'down{i}_input')
          h = pyramid = (half(resampling.blurred_fir(pyramid)) + h) * 0.5**0.5
        skips.append(keep(h, f'down{i}_half'))

    h = attend(block(h, 'middle_0', h.shape[-1]), 'middle')
    h = keep(block(h, 'middle_1', h.shape[-1]), 'middle')

    for i, multiplier in reversed(list(enumerate(self.channel_mult))):
      for j in range(self.blocks_per_level + 1):
        h = block(jnp.concatenate([h, skips.pop()], -1), f'up{i}_{j}', multiplier * self.width)
        h = attend(h, f'up{i}_{j}') if j == self.blocks_per_level and h.shape[1] in self.attention else h
        keep(h, f'up{i}_{j}')
      if i > 0:
        h = keep(block(h, f'up{i}_double', h.shape[-1], double), f'up{i}_double')

    h = keep(nn.silu(GroupNorm(self.dtype, name='norm')(h)), 'head')
    out = Conv(channels, initial=zeros, dtype=self.dtype, name='out')(h).astype(jnp.float32)
    return unfolded(out, frames) if frames and not self.out_channels else out

  def _embedding(self, batch, t, label, augment):
    size = 4 * self.width
    t, *to = moments(t, batch, self.times)
    h = self._embedded(t)
    if self.augment:
      augment = jnp.zeros((batch, self.augment)) if augment is None else augment
      h += Dense(h.shape[-1], ('in', 'embed'), dtype=self.dtype, bias=False, name='augment')(augment)
    h = Dense(size, ('in', 'embed'), dtype=self.dtype, name='time_0')(h)
    for s in to:
      h += Dense(size, ('in', 'embed'), zeros, self.dtype, bias=False, name='to')(self._embedded(s))
    h = Dense(size, ('in', 'embed'), dtype=self.dtype, name='time_1')(nn.silu(h))
    return h + Label(self.classes, size, self.dtype, name='label')(label, batch) if self.classes else h

  def _embedded(self, t):
    return gaussian_fourier(4 * t, self.width) if self.embedding == 'fourier' else sincos(t, self.width)

  def _check_input(self, x, label, augment):
    check_unet_image(x, self.channel_mult, self.attention)
    check('cond', 'labels', self.classes or label is None, 'None, as the network has classes=0')
    told = 0 if augment is None else augment.shape[-1]
    check('cond', f'{told} augmentation numbers', told in (0, self.augment), f'{self.augment}, or none')


class Residual(nn.Module):
  """The BigGAN residual block, which may halve or double the image's size.

  (skip(R x) + conv_0 drop silu GN (conv R silu GN x + Dense temb)) / sqrt 2: the BigGAN block, R halves or doubles.

  x (B, H, W, C); temb (B, E) *after* its silu. skip is a 1x1 conv where the channels change or R acts, else nothing.
  """

  features: int
  dropout: float = 0.0
  resample: Any = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, temb, key=None):
    change = self.resample or (lambda h: h)
    h = change(nn.silu(GroupNorm(self.dtype, name='norm_0')(x)))
    h = Conv(self.features, dtype=self.dtype, name='conv_0')(h)
    h += Dense(self.features, ('embed', 'out'), dtype=self.dtype, name='time')(temb)[:, None, None]
    h = Dropout(self.dropout, name='dropout')(nn.silu(GroupNorm(self.dtype, name='norm_1')(h)), key)
    h = Conv(self.features, initial=zeros, dtype=self.dtype, name='conv_1')(h)
    if self.resample or x.shape[-1] != self.features:
      x = Conv(self.features, size=1, dtype=self.dtype, name='skip')(change(x))
    return (x + h) * 0.5**0.5
