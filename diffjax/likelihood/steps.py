"""What the bounds of a sampler on a grid share: its steps, how its end is decoded, and what they refuse."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.contracts import Cond
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.likelihood.decoders import decoded
from diffjax.noise_levels import on_grid
from diffjax.prediction import Denoise
from diffjax.process import Process

__all__ = ['Decoder', 'Steps', 'check_levels', 'laid_out', 'norm2', 'reconstruction']


class Steps(NamedTuple):
  """The steps t -> s of a grid, (n,) each: times, levels at s, the pull of x0, the variances of q and of the model."""

  t: Array
  s: Array
  pull: Array
  keep: Array
  exact: Array
  model: Array


class Decoder(NamedTuple):
  """The deviation of the data about the network's x0, or nan about x / alpha; and the last time."""

  std: Array
  t: Array


def laid_out(
  process: Process, ts: Any, variance: Any, decoder_std: float | None, levels: int | None
) -> tuple[Steps, Decoder]:
  """The steps of a grid, and how its end is decoded; raises InputError as `bounds.discrete_bound`."""
  grid = on_grid(process, ts)
  if not np.isfinite(grid.lam[-1]):
    raise InputError(f'ts: got {grid.ts[-1]:g} at the end, of infinite lam; allowed: a later time')
  if decoder_std is not None and not decoder_std > 0:
    raise InputError(f'decoder_std: got {decoder_std}; allowed: a positive number, or None')
  check_levels(levels)
  alpha, sigma = grid.alpha[1:], grid.sigma[1:]
  gap = grid.lam[1:] - grid.lam[:-1]
  new = -np.expm1(-2 * gap)  # the share of the noise at s that is drawn anew
  exact, large = sigma**2 * new, grid.sigma[:-1] ** 2 * new
  if isinstance(variance, str):
    if variance not in ('small', 'large'):
      raise InputError(f'variance: got {variance!r}; allowed: small, large, or numbers ({len(exact)},)')
    model = exact if variance == 'small' else large
  else:
    model = np.asarray(variance, np.float64)
    if model.shape != exact.shape or not (model > 0).all():
      raise InputError(f'variance: got shape {model.shape}; allowed: positive numbers, shape {exact.shape}')
  keep = sigma / grid.sigma[:-1] * np.exp(-gap)
  steps = Steps(*(jnp.asarray(v, float) for v in (grid.ts[:-1], grid.ts[1:], alpha * new, keep, exact, model)))
  std = np.nan if decoder_std is None else decoder_std
  return steps, Decoder(jnp.asarray(std, float), jnp.asarray(grid.ts[-1], float))


def check_levels(levels: int | None) -> None:
  """Raises InputError for fewer than two values of a component."""
  if levels is not None and levels < 2:
    raise InputError(f'levels: got {levels}; allowed: a whole number of at least 2, or None')


def norm2(x: Array) -> Array:
  """|x|^2 of each row of x (B, ...), (B,)."""
  return jnp.sum(x.reshape(len(x), -1) ** 2, axis=-1)


def reconstruction(
  denoise: Denoise, x0: Array, x: Array, cond: Cond, decoder: Decoder, levels: int | None, network: bool
) -> Array:
  """-log p(x0 | x), x at the decoder's time."""
  alpha, sigma = denoise.process.schedule(decoder.t)
  if network:
    mean, std = widened(denoise(x, decoder.t, cond).x0), decoder.std
  else:
    mean, std = x / alpha, sigma / alpha
  return -decoded(x0, mean, std, levels, network)
