"""What the transformers share: patches, positions, the feed-forward layer, and a stack of equal blocks."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from .arguments import check, check_classes, check_remat, is_count
from .attention import check_attention_impl
from .layers import Dense, rematted

__all__ = ['stacked', 'unstacked']


def patchify(x, p: int):
  """Images (B, H, W, C) as tokens (B, HW / p^2, p^2 C): patches row by row, a patch in the order (row, column, C)."""
  b, h, w, c = x.shape
  return x.reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3).reshape(b, h * w // p**2, p * p * c)


def unpatchify(tokens, size: tuple[int, int], p: int):
  """Images (B, H, W, C) of this size (H, W) from their tokens: the inverse of `patchify`."""
  h, w = size
  return tokens.reshape(tokens.shape[0], h // p, w // p, p, p, -1).swapaxes(2, 3).reshape(tokens.shape[0], h, w, -1)


def check_patches(x, p: int):
  """InputError unless x is a batch of images that divides into patches."""
  check('x', x.shape, x.ndim == 4, 'images (B, H, W, C)')
  check('x', x.shape, x.shape[1] % p == x.shape[2] % p == 0, f'height and width divisible by {p}')


def positions(rows: int, columns: int, size: int) -> np.ndarray:
  """Fixed sine-cosine positions (rows columns, size): [sin, cos](column w_i), then [sin, cos](row w_i).

  w_i = 10000^(-i / (size/4)), in float64. The column comes first, as in the released tables.   arXiv:2212.09748
  """
  w = 10000.0 ** (-np.arange(size // 4) / (size // 4))
  row, column = np.divmod(np.arange(rows * columns), columns)
  angles = (place[:, None] * w for place in (column, row))
  return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], 1)


class FeedForward(nn.Module):
  """The feed-forward net of a transformer block.

  W2 gelu(W1 x), hidden features `ratio` times as many; `tanh`: gelu by its tanh approximation, else by erf.
  """

  ratio: int = 4
  tanh: bool = True
  initial: Any = nn.initializers.xavier_uniform()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    h = Dense(self.ratio * x.shape[-1], ('in', 'mlp'), self.initial, self.dtype, name='in')(x)
    h = nn.gelu(h, approximate=self.tanh)
    return Dense(x.shape[-1], ('mlp', 'out'), self.initial, self.dtype, name='out')(h)


def chain(
  block: Callable, fields: dict, depth: int, name: str, h: Any, shared: Any = (), *, own: Any = None,
  remat: Any = None, scan: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
  """Runs h through `depth` blocks of one class, apart or scanned; returns the last h and what each block gave out.

  h, y_i <- block_i(h, own_i, shared) for i = 0 .. depth - 1: the last h, and all y.

  Called inside a compact method. Modules are named NAME_i; with `scan` there is one, NAMEs, compiled once, whose
  weights have the layer as their first axis ('layers'), and `own` and y are stacked. Otherwise they are lists.
  """
  module = rematted(block, remat, in_scan=scan)
  if scan:
    layers = nn.scan(
      module,
      variable_axes={True: 0},  # weights and tapped features alike
      split_rngs={'params': True},
      in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
      length=depth,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return layers(**fields, name=name + 's')(h, own, shared)
  out = []
  for i in range(depth):
    h, y = module(**fields, name=f'{name}_{i}')(h, None if own is None else own[i], shared)
    out.append(y)
  return h, out


def reverse(features: Any) -> Any:
  """What `chain` collected, last first."""
  return features[::-1] if isinstance(features, list) else jax.tree.map(lambda y: jnp.flip(y, 0), features)


def stacked(params: dict[str, Any]) -> dict[str, Any]:
  """The weights of a network with `scan` from those of the same one without: block_0, block_1, .. become blocks."""
  groups: dict[str, dict[int, Any]] = {}
  for name, value in params.items():
    if found := re.fullmatch(r'(.*block)_(\d+)', name):
      groups.setdefault(found[1] + 's', {})[int(found[2])] = value
  rest = {name: value for name, value in params.items() if not re.fullmatch(r'.*block_\d+', name)}
  return rest | {
    name: jax.tree.map(lambda *w: jnp.stack(w), *(g[i] for i in range(len(g)))) for name, g in groups.items()
  }


def unstacked(params: dict[str, Any]) -> dict[str, Any]:
  """The inverse of `stacked`."""
  out = {}
  for name, value in params.items():
    if not name.endswith('blocks'):
      out[name] = value
      continue
    for i in range(jax.tree.leaves(value)[0].shape[0]):
      out[f'{name[:-1]}_{i}'] = jax.tree.map(lambda w, i=i: w[i], value)
  return out


def dimensions(
  sizes: dict[str, tuple[int, int, int]], size: str, depth: int | None, width: int | None, heads: int | None
) -> tuple[int, int, int]:
  """The depth, width and heads of a preset, each replaced where it is given; checked."""
  check('size', size, size in sizes, ', '.join(map(repr, sizes)))
  preset = sizes[size]
  depth = preset[0] if depth is None else depth
  width = preset[1] if width is None else width
  heads = preset[2] if heads is None else heads
  for field, value in dict(depth=depth, width=width, heads=heads).items():
    check(field, value, is_count(value), 'a positive integer')
  check('width', width, width % 4 == 0, 'an integer divisible by 4')
  check('heads', heads, width % heads == 0, f'a number that divides the width {width}')
  return depth, width, heads


def check_options(patch: Any, classes: Any, attention_impl: Any, remat: Any) -> None:
  """InputError for an option of a transformer that is out of its range."""
  check('patch', patch, is_count(patch), 'a positive integer')
  check_classes(classes)
  check_attention_impl(attention_impl)
  check_remat(remat)


def layout(counts: Iterable[tuple[str, int]]) -> dict[str, slice]:
  """Where each named group of tokens lies in their sequence."""
  places, start = {}, 0
  for name, count in counts:
    places[name] = slice(start, start + count)
    start += count
  return places
