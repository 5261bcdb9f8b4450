"""Attentive Eraser: towards what the network says when nothing looks at the object."""

import fnmatch
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Cond, Data, Time
from diffjax.errors import InputError
from diffjax.guidance.perturbed import Operated, hooked
from diffjax.guidance.transform import as_scale, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand

__all__ = ['attentive_eraser']


def attentive_eraser(
  denoise: Denoise,
  mask: Any,
  scale: Any = 9.0,
  *,
  layers: str = '*',
  similarity: float = 0.3,
  similar: float = 0.8,
  start: float = 0.92,
) -> 'Erased':
  """Attentive Eraser: extrapolates to the network in which no token attends to the object, so that it is painted over.

      d + scale (p - d),   p of the same network with the object's keys hidden from every query     arXiv:2412.12974

  While much noise is left, similarities of the object's own queries are multiplied by `similarity`, which lets its
  place look elsewhere than at what is most like it. Scale 0 is `denoise`, 1 the network that does not look. Costs one
  evaluation of the network beside those of `denoise`.

  Args:
    denoise: what is asked for predictions, its network one of `diffjax.nets` with attention over images.
    mask: where the object is, (H, W) or one a sample (B, H, W), booleans or 0 and 1.
    scale: a number, one a sample (B,), or a function of t as a pytree; published 9.
    layers: which attentions, a pattern of their names (`Apply.hook_names`); all by default.
    similarity: published .3.
    similar: it holds at times above this share of t_max; published 9 steps of 50 are above .82.
    start: guided at times up to this share of t_max; published from the 4th step of 50 on.

  Raises:
    InputError: a network that has no attention to take over, a mask of another rank, or (when called) none of these
      names, or tokens that are no image of the mask's shape.
  """
  mask = jnp.asarray(mask, bool)
  if mask.ndim not in (2, 3):
    raise InputError(f'mask: got shape {mask.shape}; allowed: (H, W), or one a sample (B, H, W)')
  t_max = denoise.process.t_max
  weight = Partial(_until, as_scale(scale), jnp.asarray(start * t_max, float))
  where = mask if mask.ndim == 3 else mask[None]
  flat = jnp.asarray(similarity, float), jnp.asarray(similar * t_max, float)
  return Erased(denoise, hooked(denoise, layers, redirected), weight, where, flat, layers=layers)


class Erased(Operated):
  """Made by `attentive_eraser`; `flat` is the factor on similarities and the time above which it holds."""

  mask: Array
  flat: tuple[Array, Array]
  layers: str = struct.field(pytree_node=False, kw_only=True)

  def other(self, x: Data, t: Time, cond: Cond) -> Pred:
    """What the network that does not look at the object predicts."""
    if len(self.mask) not in (1, len(x)):
      raise InputError(f'mask: got {len(self.mask)} masks for {len(x)} samples; allowed: one, or one a sample')
    factor, above = self.flat
    similarity = jnp.where(jnp.asarray(t) > above, factor, 1.0)
    names = self.denoise_net.hook_names(x, jnp.zeros(len(x)), cond)
    given = {name: (self.mask, similarity) for name in names if fnmatch.fnmatchcase(name, self.layers)}
    told = self.perturbed.params.get('hooks', {}) | given
    return self.perturbed.replace(params=self.perturbed.params | {'hooks': told})(x, t, cond)

  @property
  def denoise_net(self) -> Any:
    """The network without hooks."""
    return type(self.perturbed.net)(self.perturbed.net.module)


def redirected(attend: Any, q: Array, k: Array, v: Array, given: Any) -> Array:
  """A hook of attention: no query looks at the tokens of the mask, whose own similarities are scaled.

  given = (mask (B or 1, H, W) of booleans, a factor, () or (B,)). A token is of the mask where any of its pixels is;
  tokens that stand before an image's, such as a label's, never are. A mask of all tokens hides none.
  """
  mask, similarity = given
  hidden = _tokens(mask, q.shape[1])
  hidden &= ~hidden.all(1, keepdims=True) | (hidden.shape[1] < q.shape[1])
  front = q.shape[1] - hidden.shape[1]
  hidden = jnp.pad(hidden, ((0, 0), (front, 0)))
  factor = jnp.where(hidden, expand(similarity, hidden), 1.0)
  return attend(q * factor[:, :, None, None].astype(q.dtype), k, v, ~hidden[:, None, None, :])


def _tokens(mask: Array, n: int) -> Array:
  """The mask (B, H, W) at the resolution of so many tokens, (B, h w), h w at most n: the finest that divides it."""
  rows, height, width = mask.shape
  for f in range(1, min(height, width) + 1):
    if height % f == 0 and width % f == 0 and height * width <= n * f * f:
      return mask.reshape(rows, height // f, f, width // f, f).any((2, 4)).reshape(rows, -1)
  raise InputError(f'mask: got shape {mask.shape[1:]} for {n} tokens; allowed: that of the image, which they divide')


def _until(scale: Any, start: Array, t: Array) -> Array:
  return jnp.where(t <= start, value_at(scale, t), 0.0)
