"""U-ViT: time, condition and patches all as tokens, and long skips between shallow and deep blocks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from .apply import Apply
from .arguments import activation_dtype, check, is_count
from .attention import MultiHead
from .embedding import Label, cossin
from .layers import Conv, Dense, LayerNorm, named, rematted
from .taps import tap
from .transformer import (
  FeedForward,
  chain,
  check_options,
  check_patches,
  dimensions,
  layout,
  patchify,
  reverse,
  unpatchify,
)

__all__ = ['UViT', 'uvit']

# depth (without the middle block), width, heads
SIZES = {
  'S': (12, 512, 8),
  'S-deep': (16, 512, 8),
  'M': (16, 768, 12),
  'L': (20, 1024, 16),
  'H': (28, 1152, 16),
}
normal = nn.initializers.normal(0.02)  # the release truncates at +-2, a hundred standard deviations
torch_conv = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # its patches and last convolution


def torch_bias(fan_in: int) -> Callable:
  """What goes with `torch_conv`: uniform to +-1 / sqrt(fan_in)."""
  return partial(jax.random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


def uvit(
  size: str = 'S',
  *,
  patch: int = 2,
  depth: int | None = None,
  width: int | None = None,
  heads: int | None = None,
  classes: int = 0,
  text: tuple[int, int] | None = None,
  conv: bool = True,
  attention_impl: str | Callable = 'xla',
  dtype: Any = 'float32',
  remat: bool | str | None = None,
  scan: bool = False,
) -> Apply:
  """Makes a `UViT` behind the interface of networks, of a published size or with its numbers replaced.

  Args:
    size: a published one: 'S', 'S-deep', 'M', 'L' or 'H'.
    patch: height and width of a patch.
    depth: blocks around the middle one, an even number, in place of those of `size`.
    width: features of a token, in place of those of `size`; divisible by 4.
    heads: attention heads, in place of those of `size`; divides the width.
    classes: the number of classes, 0 for none.
    text: (tokens, features) of the condition where it is a text; None with classes.
    conv: whether a 3x3 convolution ends the network.
    attention_impl: the implementation of attention, see `attention.Attend`.
    dtype: of the activations: 'float32', 'bfloat16', 'float16' or 'float64'.
    remat: what the backward pass computes again, see `layers.rematted`; None nothing.
    scan: whether equal blocks are compiled once, their weights stacked (`transformer.stacked`).

  Raises:
    InputError: an argument out of its range; shapes are checked in `init` or the first trace.
  """
  depth, width, heads = dimensions(SIZES, size, depth, width, heads)
  check('depth', depth, depth % 2 == 0, 'even, as half of the blocks come before the middle one')
  check_options(patch, classes, attention_impl, remat)
  pair = text is None or (len(text) == 2 and all(map(is_count, text)))
  check('text', text, pair and not (text and classes), '(tokens, features) or None, and None with classes')
  return Apply(
    UViT(
      depth=depth,
      width=width,
      heads=heads,
      patch=patch,
      classes=classes,
      text=None if text is None else (text[0], text[1]),
      conv=bool(conv),
      attention_impl=attention_impl,
      dtype=activation_dtype(dtype),
      remat=remat or None,
      scan=bool(scan),
    )
  )


class UViT(nn.Module):
  """A transformer with long skips from a noisy image and its noise level to an image of the same size.

  (B, H, W, C) -> (B, H, W, C) float32; not zero at init, as published.

  h = [label row, cossin_D(t), text, W patches(x)] + trained positions
  h, s_i <- Block(h),              depth/2 times, every s_i kept
  h <- Block(h)
  h <- Block(W [h, s_i]),          depth/2 times, the last s_i first
  out = conv(unpatch(W LN(h of the patches)))                            (conv: 3x3, where `conv`)

  x (B, H, W, C), H and W divisible by `patch`; t (B,), the embedding coordinate; cond None (the null label, classes) or
  labels (B,) in 0 .. classes; with text = (n, d), cond is features (B, n, d) and must be given. key is not used.
  Positions are trained for one image size. InputError for an image that does not divide, or a condition the network
  does not take.

  Weights, statistics, softmax and output are float32, other activations `dtype`. `attention_impl` as in `Attend`,
  `remat` as in `layers.rematted`; `scan` compiles one block of each half and stacks the weights
  (`transformer.stacked`).
  Taps, all tokens each: 'in', 'in_block_{i}/out', 'middle/out', 'out_block_{i}/out', '.../attention/out', 'head'; under
  scan 'in_blocks/out' and so on, (depth/2, B, N, D). Hooks: 'in_block_{i}/attention' and so on.   arXiv:2209.12152
  """

  depth: int
  width: int
  heads: int
  patch: int = 2
  classes: int = 0
  text: tuple[int, int] | None = None
  conv: bool = True
  attention_impl: str | Callable = 'xla'
  dtype: Any = jnp.float32
  remat: bool | str | None = None
  scan: bool = False

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    self._check_input(x, cond)
    batch, height, width, channels = x.shape
    tokens = {'time': cossin(jnp.broadcast_to(t, (batch,)), self.width)[:, None]}
    if self.classes:
      label = Label(self.classes, self.width, self.dtype, logical_axes=('label', 'out'), name='label')(cond, batch)
      tokens = {'label': label[:, None]} | tokens
    if self.text:
      tokens['text'] = Dense(self.width, initial=normal, dtype=self.dtype, name='text')(cond)
    patches = patchify(x, self.patch)
    bias = torch_bias(patches.shape[-1])
    embed = Dense(self.width, initial=torch_conv, initial_bias=bias, dtype=self.dtype, name='patch')
    tokens['patches'] = embed(patches)
    h = trunk(self, tokens)['patches']
    h = Dense(self.patch**2 * channels, initial=normal, dtype=self.dtype, name='out')(h)
    h = unpatchify(h, (height, width), self.patch)
    if self.conv:
      bias = torch_bias(9 * channels)
      h = Conv(channels, initial=torch_conv, initial_bias=bias, dtype=self.dtype, name='conv')(h)
    return h.astype(jnp.float32)

  def _check_input(self, x, cond):
    check_patches(x, self.patch)
    if self.text:
      shape = None if cond is None else jnp.shape(cond)
      check('cond', shape, shape == (x.shape[0], *self.text), f'features of shape {(x.shape[0], *self.text)}')
    else:
      check('cond', 'labels', self.classes or cond is None, 'None, as the network has classes=0')


def trunk(net: Any, tokens: dict[str, Any], post: bool = False) -> dict[str, Any]:
  """The blocks of a U-ViT between its tokens, by name and in order, each (B, n, D), and what becomes of them.

  Called in the compact method of `net`, whose sizes it has and whose weights it makes; `post` as in `Block`.
  """
  places = layout((name, value.shape[1]) for name, value in tokens.items())
  h = jnp.concatenate([value.astype(net.dtype) for value in tokens.values()], axis=1)
  h += net.param('positions', named(normal, None, 'out'), h.shape[1:]).astype(net.dtype)
  h = tap(net, 'in', h)
  fields = dict(heads=net.heads, attention_impl=net.attention_impl, post=post, dtype=net.dtype)
  options = dict(remat=net.remat, scan=net.scan)
  h, skips = chain(Block, fields, net.depth // 2, 'in_block', h, **options)
  h, _ = rematted(Block, net.remat)(**fields, name='middle')(h)
  h, _ = chain(Block, fields, net.depth // 2, 'out_block', h, own=reverse(skips), **options)
  h = LayerNorm(1e-5, dtype=net.dtype, name='norm')(h)
  h = tap(net, 'head', h)
  return {name: h[:, place] for name, place in places.items()}


class Block(nn.Module):
  """A U-ViT block: attention and a feed-forward net, each behind a layer norm.

  h += Attn(LN h);  h += FeedForward(LN h); with `post`  h = LN(h + Attn h);  h = LN(h + FeedForward h).

  No bias of q, k and v. With a skip `own`, (B, N, D) like h, W [h, own] comes first, under another LN if `post`;
  `shared` is not used. Returns the result twice: the second is what a later block is handed as its skip.
  """

  heads: int
  attention_impl: str | Callable = 'xla'
  post: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, h, own=None, shared=()):
    def norm(h, name):
      return LayerNorm(1e-5, dtype=self.dtype, name=name)(h)

    attention = MultiHead(self.heads, self.attention_impl, False, normal, self.dtype, name='attention')
    feed = FeedForward(tanh=False, initial=normal, dtype=self.dtype, name='feed')
    if own is not None:
      h = Dense(h.shape[-1], initial=normal, dtype=self.dtype, name='skip')(jnp.concatenate([h, own], -1))
      h = norm(h, 'norm_skip') if self.post else h
    if self.post:
      h = norm(h + attention(h), 'norm_0')
      h = norm(h + feed(h), 'norm_1')
    else:
      h += attention(norm(h, 'norm_0'))
      h += feed(norm(h, 'norm_1'))
    h = tap(self, 'out', h)
    return h, h
