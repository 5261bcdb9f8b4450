"""DiT: a transformer over image patches, told time and label by adaptive layer norms that start at zero."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from .apply import Apply
from .arguments import activation_dtype, check, is_count
from .attention import MultiHead
from .embedding import Label, cossin
from .layers import Dense, LayerNorm, zeros
from .taps import tap
from .transformer import FeedForward, chain, check_options, check_patches, dimensions, patchify, positions, unpatchify

__all__ = ['DiT', 'dit']

SIZES = {'S': (12, 384, 6), 'B': (12, 768, 12), 'L': (24, 1024, 16), 'XL': (28, 1152, 16)}  # depth, width, heads


def dit(
  size: str = 'S',
  patch: int = 2,
  depth: int | None = None,
  width: int | None = None,
  heads: int | None = None,
  classes: int = 0,
  out_channels: int | None = None,
  attention: str | Callable = 'xla',
  dtype: Any = 'float32',
  remat: bool | str | None = None,
  scan: bool = False,
) -> Apply:
  """`DiT` of a published size, 'S', 'B', 'L' or 'XL', with any of depth, width and heads replaced.

  InputError names field, value and what is allowed; shapes are checked in `init` or the first trace.
  """
  depth, width, heads = dimensions(SIZES, size, depth, width, heads)
  check_options(patch, classes, attention, remat)
  check('out_channels', out_channels, out_channels is None or is_count(out_channels), 'a positive integer or None')
  return Apply(
    DiT(
      depth=depth,
      width=width,
      heads=heads,
      patch=patch,
      classes=classes,
      out_channels=out_channels,
      attention=attention,
      dtype=activation_dtype(dtype),
      remat=remat or None,
      scan=bool(scan),
    )
  )


class DiT(nn.Module):
  """A diffusion transformer from a noisy image and its noise level to an image of the same size.

  The image a noisy image points to: (B, H, W, C) -> (B, H, W, out_channels or C) float32, exactly 0 at init.

  h = W patches(x) + fixed positions
  c = silu(Dense(D) silu Dense(D) cossin_256(t) [+ label row])
  h <- Block(h, c), `depth` times; every block is the identity at init
  out = unpatch(W0 (g LN(h) + b)), (b, g - 1) = W0' c                    (W0, W0': start at zero)

  x (B, H, W, C), H and W divisible by `patch`; t (B,), the embedding coordinate; cond labels (B,) in 0 .. classes or
  None (the null label, classes); key is not used. With learned variances out_channels is 2C, the mean's channels first.
  InputError for an image that does not divide, or labels for a network without classes.

  Weights, statistics, softmax and output are float32, other activations `dtype`. `attention` as in `Attend`, `remat` as
  in `layers.rematted`; `scan` compiles one block and stacks the weights (`transformer.stacked`).
  Taps: 'in', 'block_{i}/attention/out', 'block_{i}/out', 'head'; under scan 'blocks/...', (depth, B, N, D).
  Hooks: 'block_{i}/attention'.   arXiv:2212.09748
  """

  depth: int
  width: int
  heads: int
  patch: int = 2
  classes: int = 0
  out_channels: int | None = None
  attention: str | Callable = 'xla'
  dtype: Any = jnp.float32
  remat: bool | str | None = None
  scan: bool = False

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    check_patches(x, self.patch)
    check('cond', 'labels', self.classes or cond is None, 'None, as the network has classes=0')
    batch, height, width, channels = x.shape
    places = positions(height // self.patch, width // self.patch, self.width)
    h = Dense(self.width, dtype=self.dtype, name='patch')(patchify(x, self.patch)) + jnp.asarray(places, self.dtype)
    tap(self, 'in', h)
    c = nn.silu(self._embedding(batch, t, cond))  # every block starts with silu(c): once for all
    fields = dict(heads=self.heads, how=self.attention, dtype=self.dtype)
    h, _ = chain(Block, fields, self.depth, 'block', h, c, remat=self.remat, scan=self.scan)

    shift, scale = modulation(2, self.width, self.dtype, 'ada')(c)
    h = modulate(LayerNorm(affine=False, dtype=self.dtype, name='norm')(h), shift, scale)
    tap(self, 'head', h)
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

  x += a1 Attn((1 + g1) LN x + b1);  x += a2 FeedForward((1 + g2) LN x + b2);  (b1, g1, a1, b2, g2, a2) = W0 c.

  x (B, N, D); c (B, D) after its silu; W0 starts at zero.
  """

  heads: int
  how: str | Callable = 'xla'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, each, c):
    b1, g1, a1, b2, g2, a2 = modulation(6, x.shape[-1], self.dtype, 'ada')(c)
    norm = LayerNorm(affine=False, dtype=self.dtype, name='norm')  # no weights: serves twice
    h = MultiHead(self.heads, self.how, dtype=self.dtype, name='attention')(modulate(norm(x), b1, g1))
    x += a1 * h
    x += a2 * FeedForward(dtype=self.dtype, name='feed')(modulate(norm(x), b2, g2))
    tap(self, 'out', x)
    return x, ()


def modulation(parts: int, width: int, dtype, name: str) -> Callable:
  """Maps the condition c (B, D) to `parts` vectors (B, 1, D) by a linear map that starts at zero."""
  dense = Dense(parts * width, ('embed', 'out'), zeros, dtype, name=name)
  return lambda c: jnp.split(dense(c)[:, None], parts, axis=-1)


def modulate(x, shift, scale):
  """Scales and shifts x: (1 + scale) x + shift."""
  return x * (1 + scale) + shift
