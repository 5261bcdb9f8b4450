"""A graph network over point clouds that turns, reflects, moves and permutes with them."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from .apply import Apply
from .arguments import activation_dtype, check, check_classes, check_out_channels, check_times, is_count
from .embedding import Label, moments, waves
from .inputs import told
from .layers import Dense, zeros
from .mlp import FREQUENCIES
from .taps import tap

__all__ = ['EGNN', 'egnn', 'centred']

PLACES = 3  # the first numbers of a point are where it is
REACH = 15.0  # the most that one neighbour moves a point, before the mean


def egnn(
  width: int = 64,
  depth: int = 4,
  out_channels: int | None = None,
  classes: int = 0,
  dtype: Any = 'float32',
  times: int = 1,
) -> Apply:
  """Makes an `EGNN` behind the interface of networks; bad arguments are refused by name."""
  check('width', width, is_count(width), 'a positive integer')
  check('depth', depth, is_count(depth), 'a positive integer')
  check_out_channels(out_channels)
  check_classes(classes)
  check_times(times)
  return Apply(EGNN(width, depth, out_channels, classes, activation_dtype(dtype), times))


def centred(x: Any, mask: Any = None) -> Any:
  """Point clouds (..., N, 3 + F) with their places about their mean, and rows where `mask` (..., N) is 0 all zero."""
  places, rest = x[..., :PLACES], x[..., PLACES:]
  if mask is None:
    return jnp.concatenate([places - places.mean(-2, keepdims=True), rest], -1)
  there = mask[..., None].astype(x.dtype)
  mean = (places * there).sum(-2, keepdims=True) / jnp.maximum(there.sum(-2, keepdims=True), 1)
  return jnp.concatenate([places - mean, rest], -1) * there


class EGNN(nn.Module):
  """An equivariant graph network over point clouds x (B, N, 3 + F): places p, then features that nothing turns.

      m_ij = mlp(h_i, h_j, |p_i - p_j|^2, the same of the input),  m_ij <- sigmoid(linear m_ij) m_ij
      h_i += mlp(h_i, mean_j m_ij)
      p_i += mean_j (p_i - p_j) / (|p_i - p_j| + 1) 15 tanh mlp'(h_i, h_j, distances)            `depth` times

  Every pair of points is an edge. The places are read about their mean, and what is returned of them is how far they
  went, about its mean: it turns and reflects as x does, and does not know where x was moved to. Features are a linear
  layer of h. Both start at exactly zero. With `out_channels`, (B, out_channels) of the mean h, which no rotation
  changes. Means rather than the published sums over 100, so that the size of a cloud does not matter.

  t (B,) or (B, 2) as of `MLP`; cond labels (B,) in 0 .. classes or None, or a dict of 'label', of 'source' (B, ...),
  numbers told to every point, and of 'mask' (B, N), 1 for a point and 0 for a row that is none: it is not read, and
  what is returned there is 0. key is not used. Geometry is float32, other activations `dtype`. Taps: 'block{i}'.
  arXiv:2102.09844, arXiv:2203.17003 appendix B
  """

  width: int = 64
  depth: int = 4
  out_channels: int | None = None
  classes: int = 0
  dtype: Any = jnp.float32
  times: int = 1
  reads_source = True
  reads_mask = True

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    cond = told(cond)
    check('cond', 'labels', self.classes or cond.label is None, 'None, as the network has classes=0')
    check('x', x.shape, x.ndim == 3 and x.shape[-1] >= PLACES, f'point clouds (B, N, {PLACES} + features)')
    x = centred(x.astype(jnp.float32), cond.mask)
    start, rest = x[..., :PLACES], x[..., PLACES:]
    there = jnp.ones(x.shape[:2]) if cond.mask is None else cond.mask.astype(jnp.float32)
    pairs = there[:, :, None] * there[:, None] * (1 - jnp.eye(x.shape[1]))
    pairs = pairs / jnp.maximum(pairs.sum(-1, keepdims=True), 1)

    h = Dense(self.width, ('embed', 'out'), dtype=self.dtype, name='embed')(self._told(t, cond, x.shape[0]))[:, None]
    if rest.shape[-1]:
      h = h + Dense(self.width, dtype=self.dtype, name='in')(rest)
    h = jnp.broadcast_to(h, (*x.shape[:2], self.width))
    place, first = start, _apart(start)[1]
    for i in range(self.depth):
      place, h = Block(self.width, self.dtype, name=f'block{i}')(place, h, first, pairs)
      tap(self, f'block{i}', h)
    if self.out_channels:
      mean = (h * there[..., None]).sum(1) / jnp.maximum(there.sum(1), 1)[:, None]
      h = nn.silu(Dense(self.width, dtype=self.dtype, name='read')(mean))
      return Dense(self.out_channels, initial=zeros, dtype=self.dtype, name='out')(h).astype(jnp.float32)
    moved = place - start
    if rest.shape[-1]:
      features = Dense(rest.shape[-1], initial=zeros, dtype=self.dtype, name='out')(h).astype(jnp.float32)
      moved = jnp.concatenate([moved, features], -1)
    return centred(moved, cond.mask)

  def _told(self, t, cond, batch):
    """Times, label and source of each cloud as one vector, (B, numbers)."""
    parts = [waves(u, FREQUENCIES) for u in moments(t, batch, self.times)]
    if self.classes:
      parts.append(Label(self.classes, 2 * len(FREQUENCIES), self.dtype, name='label')(cond.label, batch))
    if cond.source is not None:
      parts.append(cond.source.reshape(batch, -1))
    return jnp.concatenate([part.astype(self.dtype) for part in parts], -1)


class Block(nn.Module):
  """One exchange of messages; see `EGNN`. place (B, N, 3), h (B, N, width), pairs (B, N, N) weights of the means."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, place, h, first, pairs):
    message = self._over_edges('message', place, h, first)
    message = message * nn.sigmoid(Dense(1, dtype=self.dtype, name='gate')(message))
    heard = (message * pairs[..., None].astype(self.dtype)).sum(2)
    update = nn.silu(
      Dense(self.width, ('in', 'mlp'), dtype=self.dtype, name='update_0')(jnp.concatenate([h, heard], -1))
    )
    h = h + Dense(self.width, ('mlp', 'out'), dtype=self.dtype, name='update_1')(update)
    pull = Dense(1, initial=zeros, dtype=self.dtype, bias=False, name='pull')(self._over_edges('move', place, h, first))
    away, square = _apart(place)
    unit = away / (jnp.sqrt(square + 1e-8) + 1)
    return place + (unit * REACH * jnp.tanh(pull.astype(jnp.float32)) * pairs[..., None]).sum(2), h

  def _over_edges(self, name, place, h, first):
    """Two layers of (h_i, h_j, distances) at every edge, (B, N, N, width)."""
    far = jnp.concatenate([_apart(place)[1], first], -1)
    parts = ('to', h, True), ('from', h, False), ('far', far, False)
    to, come, far = (
      Dense(self.width, dtype=self.dtype, bias=bias, name=f'{name}_{part}')(value) for part, value, bias in parts
    )
    edge = nn.silu(to[:, :, None] + come[:, None] + far)
    return nn.silu(Dense(self.width, dtype=self.dtype, name=f'{name}_1')(edge))


def _apart(place):
  """The differences p_i - p_j (B, N, N, 3) and their squared lengths (B, N, N, 1)."""
  away = place[:, :, None] - place[:, None]
  return away, jnp.square(away).sum(-1, keepdims=True)
