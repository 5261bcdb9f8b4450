"""DiT: a transformer over image patches, told time and label by adaptive layer norms that start at zero."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from .apply import Apply
from .arguments import activation_dtype, check, check_out_channels, is_count
from .attention import MultiHead
from .embedding import Label, cossin
from .layers import Dense, LayerNorm, zeros
from .taps import tap
from .transformer import FeedForward, chain, check_options, check_patches, dimensions, patchify, positions, unpatchify

__all__ = ['DiT', 'dit']

SIZES = {'S': (12, 384, 6), 'B': (12, 768, 12), 'L': (24, 1024, 16), 'XL': (28, 1152, 16)}  # depth, width, heads


def dit(
  size: str = 'S',
  *,
  patch: int = 2,
  depth: int | None = None,
  width: int | None = None,
  heads: int | None = None,
  classes: int = 0,
  out_channels: int | None = None,
  attention_impl: str | Callable = 'xla',
  dtype: Any = 'float32',
  remat: bool | str | None = None,
  scan: bool = False,
  tokens: int = 0,
) -> Apply:
  """Makes a `DiT` behind the interface of networks, of a published size or with its numbers replaced.

  Args:
    size: a published one: 'S', 'B', 'L' or 'XL'.
    patch: height and width of a patch.
    depth: blocks, in place of those of `size`.
    width: features of a token, in place of those of `size`; divisible by 4.
    heads: attention heads, in place of those of `size`; divides the width.
    classes: the number of classes, 0 for none.
    out_channels: None for as many as come in; twice as many where variances are learned.
    attention_impl: the implementation of attention, see `attention.Attend`.
    dtype: of the activations: 'float32', 'bfloat16', 'float16' or 'float64'.
    remat: what the backward pass computes again, see `layers.rematted`; None nothing.
    scan: whether equal blocks are compiled once, their weights stacked (`transformer.stacked`).
    tokens: the features of a token in the condition, 0 for none; it is then {'label': .., 'tokens': (B, N, tokens)}.

  Raises:
    InputError: an argument out of its range; shapes are checked in `init` or the first trace.
  """
  depth, width, heads = dimensions(SIZES, size, depth, width, heads)
  check_options(patch, classes, attention_impl, remat)
  check_out_channels(out_channels)
  check('tokens', tokens, tokens == 0 or is_count(tokens), 'the features of a token, 0 for none')
  return Apply(
    DiT(
      depth=depth,
      width=width,
      heads=heads,
      patch=patch,
      classes=classes,
      out_channels=out_channels,
      attention_impl=attention_impl,
      dtype=activation_dtype(dtype),
      remat=remat or None,
      scan=bool(scan),
      tokens=tokens,
    )
  )


class DiT(nn.Module):
  """A diffusion transformer from a noisy image and its noise level to an image of the same size.

  (B, H, W, C) -> (B, H, W, out_channels or C) float32, exactly 0 at init.

  h = W patches(x) + fixed positions
  c = silu(Dense(D) silu Dense(D) cossin_256(t) [+ label row] [+ W'' f])
  h <- Block(h, c), `depth` times; every block is the identity at init
  out = unpatch(W0 (g LN(h) + b)), (b, g - 1) = W0' c                    (W0, W0': start at zero)

  x (B, H, W, C), H and W divisible by `patch`; t (B,), the embedding coordinate; cond labels (B,) in 0 .. classes or
  None (the null label, classes); key is not used. With learned variances out_channels is 2C, the mean's channels first.
  InputError for an image that does not divide, or labels for a network without classes. With `tokens` cond is
  {'label': those, 'tokens': f (B, N, tokens)}, and each token has its own c.

  Weights, statistics, softmax and output are float32, other activations `dtype`. `attention_impl` as in `Attend`,
  `remat` as in `layers.rematted`; `scan` compiles one block and stacks the weights (`transformer.stacked`).
  Taps: 'in', 'block_{i}/attention/out', 'block_{i}/out', 'head'; under scan 'blocks/...', (depth, B, N, D).
  Hooks: 'block_{i}/attention'.   arXiv:2212.09748
  """

  depth: int
  width: int
  heads: int
  patch: int = 2
  classes: int = 0
  out_channels: int | None = None
  attention_impl: str | Callable = 'xla'
  dtype: Any = jnp.float32
  remat: bool | str | None = None
  scan: bool = False
  tokens: int = 0

  @nn.compact
  def __call__(self, x, t, cond: Any = None, key=None):
    check_patches(x, self.patch)
    cond, told = (cond.get('label'), cond['tokens']) if self.tokens else (cond, None)
    check('cond', 'labels', self.classes or cond is None, 'None, as the network has classes=0')
    batch, height, width, channels = x.shape
    places = positions(height // self.patch, width // self.patch, self.width)
    h = Dense(self.width, dtype=self.dtype, name='patch')(patchify(x, self.patch)) + jnp.asarray(places, self.dtype)
    h = tap(self, 'in', h)
    c = self._embedding(batch, t, cond)
    if told is not None:
      c = c[:, None] + Dense(self.width, ('in', 'embed'), dtype=self.dtype, name='told')(told)
    c = nn.silu(c)  # every block starts with silu(c): once for all
    fields = dict(heads=self.heads, attention_impl=self.attention_impl, dtype=self.dtype)
    h, _ = chain(Block, fields, self.depth, 'block', h, c, remat=self.remat, scan=self.scan)

    shift, scale = modulation(2, self.width, self.dtype, 'ada')(c)
    h = modulate(LayerNorm(affine=False, dtype=self.dtype, name='norm')(h), shift, scale)
    h = tap(self, 'head', h)
    out = Dense(self.patch**2 * (self.out_channels or channels), initial=zeros, dtype=self.dtype, name='out')(h)
    return unpatchify(out, (height, width), self.patch).astype(jnp.float32)

  def _embedding(self, batch, t, cond):
    normal = nn.initializers.normal(0.02)
    h = cossin(jnp.broadcast_to(t, (batch,)), 256)
    h = Dense(self.width, ('in', 'embed'), normal, self.dtype, name='time_0')(h)
    h = Dense(self.width, ('in', 'embed'), normal, self.dtype, name='time_1')(nn.silu(h))
    return h + Label(self.classes, self.width, self.dtype, 0.02, name='label')(cond, batch) if self.classes else h


class Block(nn.Module):
  """A DiT block: attention and a feed-forward net, each modulated and gated by the condition (adaLN-zero).

  h += a1 Attn((1 + g1) LN h + b1);  h += a2 FeedForward((1 + g2) LN h + b2);  (b1, g1, a1, b2, g2, a2) = W0 c.

  h (B, N, D); `shared` is c (B, D) or (B, N, D) after its silu, `own` is not used; W0 starts at zero.
  """

  heads: int
  attention_impl: str | Callable = 'xla'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, h, own, shared):
    b1, g1, a1, b2, g2, a2 = modulation(6, h.shape[-1], self.dtype, 'ada')(shared)
    norm = LayerNorm(affine=False, dtype=self.dtype, name='norm')  # no weights: serves twice
    attention = MultiHead(self.heads, self.attention_impl, dtype=self.dtype, name='attention')
    h += a1 * attention(modulate(norm(h), b1, g1))
    h += a2 * FeedForward(dtype=self.dtype, name='feed')(modulate(norm(h), b2, g2))
    return tap(self, 'out', h), ()


def modulation(parts: int, width: int, dtype, name: str) -> Callable:
  """Maps c (B, D) to `parts` vectors (B, 1, D), or c (B, N, D) to (B, N, D), by a linear map that starts at zero."""
  dense = Dense(parts * width, ('embed', 'out'), zeros, dtype, name=name)
  return lambda c: jnp.split(dense(c if c.ndim == 3 else c[:, None]), parts, axis=-1)


def modulate(x, shift, scale):
  """Scales and shifts x: (1 + scale) x + shift."""
  return x * (1 + scale) + shift
