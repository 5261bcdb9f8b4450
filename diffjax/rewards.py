"""Rewards: what samples are worth, (x (B, ...), labels (B,) or None) -> (B,) float32; named by a method's `reward`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.errors import InputError
from diffjax.metrics import digits

__all__ = ['digit', 'is_digit', 'near', 'symmetry', 'thickness', 'within']

Reward = Callable[[Array, Array | None], Array]


def near(point: tuple[float, ...]) -> Reward:
  """Minus the square distance to a point, -|x - point|^2, summed over the dimensions."""
  return lambda x, label: -_square(x, point)


def within(point: tuple[float, ...], radius: float) -> Reward:
  """1 within this distance of a point, 0 elsewhere: a reward without a gradient."""
  if not radius > 0:
    raise InputError(f'radius: got {radius}; allowed: a positive number')
  return lambda x, label: (_square(x, point) < radius**2).astype(jnp.float32)


def digit(label: int | None = None) -> Reward:
  """The log-probability of a digit in images (B, 8, 8, 1) in [-1, 1], that of the label asked for unless it is given.

  By the network that reads the labels of the digits protocol (`metrics.digits`), which saw the training split alone.
  """
  return lambda x, asked: _picked(jax.nn.log_softmax(_logits(x)), label, asked)


def is_digit(label: int | None = None) -> Reward:
  """1 where the network of `digit` reads that digit, 0 elsewhere: a reward without a gradient."""

  def reward(x: Array, asked: Array | None) -> Array:
    logits = _logits(x)
    return _picked(jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=jnp.float32), label, asked)

  return reward


def thickness(target: float | None = None) -> Reward:
  """How thick the strokes of images (B, H, W, C) in [-1, 1] are, in pixels; with a target, minus the square distance.

  2 ink / total variation of p = (x + 1) / 2: twice the area of a stroke over its outline.
  """

  def reward(x: Array, label: Array | None) -> Array:
    p = (_image(x) + 1) / 2
    p = jnp.pad(p, ((0, 0), (1, 1), (1, 1), (0, 0)))
    down, across = p[:, 1:, :-1] - p[:, :-1, :-1], p[:, :-1, 1:] - p[:, :-1, :-1]
    outline = jnp.sum(jnp.sqrt(down**2 + across**2 + 1e-6), (1, 2, 3))
    width = 2 * jnp.sum(p, (1, 2, 3)) / outline
    return width if target is None else -((width - target) ** 2)

  return reward


def symmetry(axis: str = 'vertical') -> Reward:
  """Minus the mean square difference of an image from its mirror image about a vertical or horizontal axis."""
  if axis not in ('vertical', 'horizontal'):
    raise InputError(f'axis: got {axis!r}; allowed: vertical, horizontal')
  place = 2 if axis == 'vertical' else 1
  return lambda x, label: -jnp.mean((_image(x) - jnp.flip(_image(x), place)) ** 2, (1, 2, 3))


def named(spec: Any) -> Reward:
  """The reward that a name, or a dict of a name and its options, stands for; a function is one itself.

  Raises:
    InputError: another name, or options that it does not have.
  """
  if callable(spec):
    own: Any = spec
    return own
  options = dict(name=spec) if isinstance(spec, str) else dict(spec or {})
  name = options.pop('name', None)
  if name not in __all__:
    raise InputError(f'reward: got {name!r}; allowed: {", ".join(__all__)}')
  try:
    return globals()[name](**options)
  except TypeError:
    told = ', '.join(options) or 'no options'
    raise InputError(f'reward: got {name} with {told}; allowed: the options of {name}, all that it needs') from None


def _square(x: Array, point: Any) -> Array:
  point = jnp.asarray(point, jnp.float32)
  if point.shape != x.shape[1:]:
    raise InputError(f'reward.point: got one of shape {point.shape}; allowed: that of an example, {x.shape[1:]}')
  return jnp.sum(((x.astype(jnp.float32) - point) ** 2).reshape(len(x), -1), -1)


def _image(x: Array) -> Array:
  if x.ndim != 4:
    raise InputError(f'reward: got samples of shape {x.shape[1:]}; allowed: images, (H, W, C)')
  return x.astype(jnp.float32)


def _logits(x: Array) -> Array:
  """The logits (B, 10) that `metrics.digits.forward` has, in JAX."""
  if x.shape[1:] != (8, 8, 1):
    raise InputError(f'reward: got images of shape {x.shape[1:]}; allowed: digits, (8, 8, 1)')
  p: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in digits.networks()['label'].items()}
  h = x.astype(jnp.float32)
  for i in range(3):
    stride = (2, 2) if i else (1, 1)
    h = jax.lax.conv_general_dilated(
      h, p[f'conv{i}'], stride, ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest'
    )
    h = jax.nn.relu(h + p[f'bias{i}'])
  hidden = jnp.tanh(jnp.matmul(h.reshape(len(x), -1), p['w'], precision='highest') + p['b'])
  return jnp.matmul(hidden, p['v'], precision='highest') + p['c']


def _picked(values: Array, label: int | None, asked: Array | None) -> Array:
  """The column of this label, or of the one asked for in each row."""
  if label is not None:
    if not 0 <= label < values.shape[-1]:
      raise InputError(f'reward.label: got {label}; allowed: 0 to {values.shape[-1] - 1}')
    return values[:, label]
  if asked is None:
    raise InputError('reward.label: got none, and the data have no labels; allowed: the label of a digit')
  return jnp.take_along_axis(values, asked[:, None], 1)[:, 0]
