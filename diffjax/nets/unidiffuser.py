"""UniDiffuser: one transformer for several modalities, each noisy to its own time."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from .apply import Apply
from .arguments import activation_dtype, check
from .embedding import Label, cossin
from .layers import Dense, zeros
from .transformer import check_options, dimensions, patchify, unpatchify
from .uvit import normal, torch_bias, torch_conv, trunk

__all__ = ['UniDiffuser', 'unidiffuser']

SIZES = {'release': (30, 1536, 24)}  # depth (without the middle block), width, heads


def unidiffuser(
  size: str = 'release',
  *,
  patch: int = 2,
  depth: int | None = None,
  width: int | None = None,
  heads: int | None = None,
  classes: int = 0,
  attention_impl: str | Callable = 'xla',
  dtype: Any = 'float32',
  remat: bool | str | None = None,
  scan: bool = False,
) -> Apply:
  """Makes a `UniDiffuser` behind the interface of networks, of the released size or with its numbers replaced.

  Args:
    size: the released one: 'release'.
    patch: height and width of a patch.
    depth: blocks around the middle one, an even number, in place of those of `size`.
    width: features of a token, in place of those of `size`; divisible by 4.
    heads: attention heads, in place of those of `size`; divides the width.
    classes: the number of classes, 0 for none.
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
  return Apply(
    UniDiffuser(
      depth=depth,
      width=width,
      heads=heads,
      patch=patch,
      classes=classes,
      attention_impl=attention_impl,
      dtype=activation_dtype(dtype),
      remat=remat or None,
      scan=bool(scan),
    )
  )


class UniDiffuser(nn.Module):
  """A transformer with long skips between several modalities, each noisy to its own time.

  {name: x^m}, {name: t^m} -> {name: out^m}, float32; not zero at init.

  h = [label row, cossin_D(t^1) .. cossin_D(t^M), W_1 tokens(x^1) .. ] + trained positions
  h through the blocks and long skips of `UViT`, normalised after each sum
  out^m = W_m' LN(h of the tokens of x^m)

  x is a dict of modalities, in the order of their names; each an array or a pytree of parts that share a time. A part
  is images (B, H, W, C), cut into patches, sequences (B, n, d), a token an element, or vectors (B, d), one token. t is
  a dict of embedding coordinates (B,) with the same names, or one for all. cond labels (B,) in 0 .. classes or None
  (the null label); key is not used. InputError for other shapes or names, an image that does not divide, or labels for
  a network without classes.

  What a time says: t^m = 0, x^m is given clean; t^m = t_max and x^m noise, it is marginalised (`guidance.modes`).
  Options, taps and hooks as in `UViT`.   arXiv:2303.06555
  """

  several_modalities: ClassVar[bool] = True  # x is a dict by name
  depth: int
  width: int
  heads: int
  patch: int = 2
  classes: int = 0
  attention_impl: str | Callable = 'xla'
  dtype: Any = jnp.float32
  remat: bool | str | None = None
  scan: bool = False

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    check('cond', 'labels', self.classes or cond is None, 'None, as the network has classes=0')
    check('x', type(x).__name__, isinstance(x, dict) and x, 'a dict of modalities')
    times = t if isinstance(t, dict) else dict.fromkeys(x, t)
    check('t', sorted(times), sorted(times) == sorted(x), f'times of the modalities {sorted(x)}')
    parts, structure = jax.tree_util.tree_flatten_with_path(x)
    parts = {jax.tree_util.keystr(path, simple=True, separator='_'): part for path, part in parts}
    batch = next(iter(parts.values())).shape[0]

    tokens = {}
    if self.classes:
      label = Label(self.classes, self.width, self.dtype, logical_axes=('label', 'out'), name='label')(cond, batch)
      tokens['label'] = label[:, None]
    for name in sorted(times):
      tokens['time ' + name] = cossin(jnp.broadcast_to(times[name], (batch,)), self.width)[:, None]
    for name, part in parts.items():
      read = self._tokens(name, part)
      initial, bias = (torch_conv, torch_bias(read.shape[-1])) if part.ndim == 4 else (normal, zeros)
      embed = Dense(self.width, initial=initial, initial_bias=bias, dtype=self.dtype, name='in_' + name)
      tokens[name] = embed(read)
    h = trunk(self, tokens, post=True)
    return jax.tree.unflatten(structure, [self._part(name, h[name], part) for name, part in parts.items()])

  def _tokens(self, name, part):
    check(f'x[{name}]', part.shape, 2 <= part.ndim <= 4, '(B, H, W, C), (B, n, d) or (B, d)')
    if part.ndim < 4:
      return part.reshape(part.shape[0], -1, part.shape[-1])
    whole = part.shape[1] % self.patch == part.shape[2] % self.patch == 0
    check(f'x[{name}]', part.shape, whole, f'height and width divisible by {self.patch}')
    return patchify(part, self.patch)

  def _part(self, name, h, part):
    features = part.shape[-1] * (self.patch**2 if part.ndim == 4 else 1)
    h = Dense(features, initial=normal, dtype=self.dtype, name='out_' + name)(h).astype(jnp.float32)
    return unpatchify(h, part.shape[1:3], self.patch) if part.ndim == 4 else h.reshape(part.shape)
