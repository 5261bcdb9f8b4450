"""Clips made block by block: a student that sees the frames before, how it goes on from its own, and windows of that.

A clip is x (F, ..., C). The student makes `block` frames at a time from noise and from the last `context` frames, its
own; where there are none yet it is told so. What it made is its next context without a gradient, so that a gradient is
one call deep, and a long clip costs the memory of its frames.   arXiv:2506.08009 Alg. 1
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.fewstep.rollouts import approach
from diffjax.methods.parts import Parts
from diffjax.nets.inputs import folded, unfolded
from diffjax.prediction import Denoiser
from diffjax.pytree import PyTree

__all__ = ['Blocks', 'Causal', 'Unrolled', 'causal', 'unrolled', 'windows']


class Causal(NamedTuple):
  """A network of clips as one of a block of frames that is told the frames before it.

  cond is {'label': .., 'past': (B, context, ..., C), 'seen': (B,) how many of these are there}. Frames are read as
  channels, and beside the past a channel a frame that is 1 where it is there.
  """

  net: Any
  shape: tuple[int, ...]
  context: int

  @property
  def module(self) -> Any:
    """The network's own."""
    return self.net.module

  def init(self, key: Array, x: Array, t: Array, cond: Cond = None) -> Params:
    """Fresh weights."""
    return self.net.init(key, self._beside(x, self.nothing(len(x))), t, cond)

  def nothing(self, rows: int) -> dict[str, Array]:
    """The past of so many clips that begin."""
    return {'past': jnp.zeros((rows, self.context, *self.shape[1:])), 'seen': jnp.zeros(rows)}

  def __call__(self, params: Params, x: Data, t: Array, cond: Any = None, key: Any = None) -> Array:
    """The output of a block (B, block, ..., C)."""
    own = self.shape[0] * self.shape[-1]
    out = self.net(params, self._beside(x, cond), t, cond['label'], key)
    return unfolded(out[..., :own], self.shape[0])

  def _beside(self, x: Array, cond: Any) -> Array:
    past, seen = cond['past'], cond['seen']
    there = (jnp.arange(self.context) >= self.context - seen[:, None]).astype(x.dtype)
    there = jnp.broadcast_to(there.reshape(*there.shape, *(1,) * (past.ndim - 2)), (*past.shape[:-1], 1))
    return jnp.concatenate([folded(x), folded(past), folded(there)], -1)


def causal(parts: Parts, block: int, context: int) -> Parts:
  """The parts of the student: of one block, its network told the frames before.

  Raises:
    InputError: data that are no clips, or a block that does not divide them.
  """
  if isinstance(parts.shape, dict) or parts.vocabulary or len(parts.shape) < 2:
    raise InputError(f'data: got those of shape {parts.shape}; allowed: clips (frames, ..., channels)')
  if block < 1 or parts.shape[0] % block or context < 1:
    raise InputError(f'block, context: got {block}, {context}; allowed: a divisor of the {parts.shape[0]} frames, and '
                     'at least one frame')  # fmt: skip
  shape = (block, *parts.shape[1:])
  return dataclasses.replace(parts, net=Causal(parts.net, shape, context), shape=shape)


class Blocks(NamedTuple):
  """What a student made, block by block: (n, B, ...) each, and (B,) the level at which each clip left.

  `inputs` are those of the last evaluations, `past` and `seen` what these were told, `x` what they said.
  """

  inputs: Array
  past: Array
  seen: Array
  x: Array
  last: Array


def unrolled(
  denoise: Denoiser, levels: tuple[float, ...], key_batch: KeyBatch, label: Cond, blocks: int, last: Array
) -> Blocks:
  """So many blocks one after another, each from the frames before it; no gradient passes.

  Args:
    denoise: the student, of a net `Causal`.
    levels: the times at which a block is asked, falling.
    key_batch: one a clip.
    label: of the clips.
    blocks: how many.
    last: (B,) the level at which every block of a clip leaves.
  """
  denoise, ts, net = stop_gradient(denoise), jnp.asarray(levels, jnp.float32), denoise.net
  like = jax.ShapeDtypeStruct((len(key_batch), *net.shape), jnp.float32)

  def one(state: dict[str, Array], i: Array) -> tuple[dict[str, Array], Any]:
    cond = {'label': label, **state}
    begin, between = keys.split(keys.fold(key_batch, i), 2)
    x = approach(denoise, like, ts, (begin, between), last, cond)
    made = denoise(x, ts[last], cond).x0
    past = jnp.concatenate([state['past'], made], 1)[:, -net.context :]
    seen = jnp.minimum(state['seen'] + net.shape[0], net.context)
    return {'past': past, 'seen': seen}, (x, state['past'], state['seen'], made)

  _, (inputs, past, seen, x) = jax.lax.scan(one, net.nothing(len(key_batch)), jnp.arange(blocks))
  return Blocks(inputs, past, seen, x, last)


def windows(
  parts: Parts, levels: tuple[float, ...], frames: int, window: int, label: Callable[[KeyBatch], Cond]
) -> Callable[[Params, KeyBatch], tuple[Data, Cond]]:
  """(params, keys) -> a window of each of the student's clips of so many frames, and its label.

  The level at which blocks leave is drawn evenly, one a clip; so is where the window begins. The calls that made the
  frames of the window are made again, with a gradient; those before it, and all that a frame was made from, have none.
  """
  size, count = parts.shape[0], window // parts.shape[0]
  ts = jnp.asarray(levels, jnp.float32)

  def make(params: Params, key_batch: KeyBatch) -> tuple[Data, Cond]:
    k_label, k_last, k_place, k_make = keys.split(key_batch, 4)
    cond = label(k_label)
    last = jnp.floor(keys.uniform(k_last) * len(levels)).astype(int)
    denoise = parts.denoiser(params)
    kept = unrolled(denoise, levels, k_make, cond, frames // size, last)
    place = jnp.floor(keys.uniform(k_place) * (frames // size - count + 1)).astype(int)

    def part(leaf: Array) -> Array:
      cut = lambda rows, start: jax.lax.dynamic_slice_in_dim(rows, start, count)  # noqa: E731
      taken = jax.vmap(cut, (1, 0))(leaf, place)
      return taken.reshape(-1, *taken.shape[2:])

    again = lambda leaf: jnp.repeat(leaf, count, axis=0)  # noqa: E731
    told = {'label': jax.tree.map(again, cond), 'past': part(kept.past), 'seen': part(kept.seen)}
    x = denoise(part(kept.inputs), again(ts[last]), told).x0
    return x.reshape(len(key_batch), window, *x.shape[2:]), cond

  return make


class Unrolled(PyTree):
  """Draws clips block by block, each block by all levels.

  Attributes:
    denoise: the student, of a net `Causal`.
    levels: the times at which a block is asked.
    frames: of a clip.
  """

  denoise: Denoiser
  levels: tuple[float, ...] = struct.field(pytree_node=False)
  frames: int = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one clip."""
    return (self.frames, *self.denoise.net.shape[1:])

  @property
  def nfe(self) -> int:
    """Evaluations of a clip."""
    return self.frames // self.denoise.net.shape[0] * len(self.levels)

  @property
  def cost(self) -> float:
    """Forwards of a clip."""
    return float(self.nfe)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the network does not have."""
    self.denoise.check_cond(cond, field)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The clips, one a key."""
    last = jnp.full(len(key_batch), len(self.levels) - 1)
    made = unrolled(self.denoise, self.levels, key_batch, cond, self.nfe // len(self.levels), last)
    return jnp.moveaxis(made.x, 0, 1).reshape(len(key_batch), *self.shape)
