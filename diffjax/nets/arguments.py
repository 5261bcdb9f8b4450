"""Checks shared by the factories, and the dtype names they take."""

from typing import Any

import jax.numpy as jnp

from diffjax.errors import InputError

from .layers import REMAT

FLOATS = ('float32', 'bfloat16', 'float16', 'float64')


def check(field: str, value: Any, ok: Any, allowed: str) -> None:
  """InputError naming field, value and what is allowed, unless ok."""
  if not ok:
    raise InputError(f'{field}: got {value!r}; allowed: {allowed}')


def is_count(value: Any) -> bool:
  """Whether a value is a positive whole number (True is none)."""
  return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_times(times: Any) -> None:
  """InputError unless `times` is 1, or 2 for a network that is told where a jump begins and where it ends."""
  check('times', times, times in (1, 2) and not isinstance(times, bool), '1, or 2: a jump is from one time to another')


def check_perturb(perturb: Any, classes: int) -> None:
  """InputError unless `perturb` is a size of noise, 0 without labels."""
  check('perturb', perturb, perturb == 0 or (perturb > 0 and classes), 'a number of at least 0, 0 without classes')


def check_remat(value: Any) -> None:
  """InputError unless `value` is a policy of `layers.rematted`."""
  known = value is None or value is False or value in REMAT
  check('remat', value, known, f'None, False, {", ".join(map(repr, REMAT))}')


def check_classes(classes: Any) -> None:
  """InputError unless `classes` is a number of classes, 0 for none."""
  check('classes', classes, classes == 0 or is_count(classes), 'the number of classes, 0 for none')


def check_out_channels(out_channels: Any) -> None:
  """InputError unless `out_channels` is a number of channels, or None for as many as come in."""
  check('out_channels', out_channels, out_channels is None or is_count(out_channels), 'a positive integer or None')


def check_unet(
  *,
  channel_mult: tuple,
  blocks_per_level: Any,
  attention: tuple,
  dropout: Any,
  classes: Any,
  out_channels: Any,
  remat: Any,
) -> None:
  """InputError for an option of a U-Net that is out of its range."""
  levels = channel_mult and all(map(is_count, channel_mult))
  check('channel_mult', channel_mult, levels, 'one positive integer multiplier a level')
  check('blocks_per_level', blocks_per_level, is_count(blocks_per_level), 'a positive integer')
  check('attention', attention, all(map(is_count, attention)), 'positive integers, the resolutions with attention')
  check('dropout', dropout, 0 <= dropout < 1, '0 <= dropout < 1')
  check_classes(classes)
  check_out_channels(out_channels)
  check_remat(remat)


def check_unet_image(x: Any, channel_mult: tuple, attention: tuple) -> None:
  """InputError unless x is images that every level halves, and `attention` lists resolutions that occur."""
  factor = 2 ** (len(channel_mult) - 1)
  check('x', x.shape, x.ndim == 4, 'images (B, H, W, C)')
  check('x', x.shape, x.shape[1] % factor == x.shape[2] % factor == 0, f'height and width divisible by {factor}')
  occur = [x.shape[1] >> i for i in range(len(channel_mult))]
  check('attention', attention, set(attention) <= set(occur), f'resolutions that occur, {occur}')


def activation_dtype(dtype: Any) -> jnp.dtype:
  """The dtype of activations from its name or itself; equal networks hold equal dtypes whichever was given."""
  name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
  check('dtype', name, name in FLOATS, ', '.join(FLOATS))
  return jnp.dtype(name)
