"""Moving averages of parameters, in float32: average += rate(n) (params - average) at the n-th update, n = 1, 2, ...

The rate 1 - beta is formed directly, so that it keeps its digits where beta is close to 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.errors import InputError

__all__ = ['constant', 'power']


@dataclass(frozen=True)
class Constant:
  """The exponential moving average of a constant decay, with a warm-up that forgets the start of the run.

  beta_n = min(decay, n / (n + 9)): the usual warm-up, which forgets the start of the run.
  """

  decay: float

  @property
  def name(self) -> str:
    return f'{self.decay:g}'

  def rate(self, n: Array | int) -> Array:
    return jnp.maximum(1 - self.decay, 9 / (jnp.asarray(n, jnp.float32) + 9))


@dataclass(frozen=True)
class Power:
  """The power-function average of EDM2, as wide as a fixed share of the run.

  beta_n = (1 - 1/n)^(gamma + 1), the average with weights ~ n^gamma: as wide as `width` of the run, at any time.

  beta_1 = 0, hence no correction of the start.   arXiv:2312.02696 eq. 8 and section 3.1
  """

  width: float

  @property
  def name(self) -> str:
    return f'power_{self.width:g}'

  def rate(self, n: Array | int) -> Array:
    return -jnp.expm1((gamma_of(self.width) + 1) * jnp.log1p(-1 / jnp.asarray(n, jnp.float32)))


Average = Constant | Power


def constant(decay: float) -> Constant:
  """The exponential average of this decay, warmed up.

  beta_n = min(decay, n / (n + 9))

  Raises:
    InputError: a decay outside [0, 1).
  """
  if not 0 <= decay < 1:
    raise InputError(f'ema: got a decay of {decay}; allowed: 0 <= decay < 1')
  return Constant(float(decay))


def power(width: float) -> Power:
  """The power-function average of this relative standard deviation.

  Raises:
    InputError: a width outside (0, 12^-1/2).
  """
  if not 0 < width < 12**-0.5:
    raise InputError(f'ema: got a power-function width of {width}; allowed: 0 < width < {12**-0.5:.3f}')
  return Power(float(width))


def averages(entries: Iterable[float | str | Average]) -> tuple[Average, ...]:
  """A config's list, (.999, 'power:.05') for example, as averages; their names are the keys of `TrainState.ema[role]`.

  Raises:
    InputError: an entry that is neither a decay nor 'power:width', or one named twice.
  """
  made = tuple(_average(entry) for entry in entries)
  if len({average.name for average in made}) < len(made):
    raise InputError(f'ema: got {[average.name for average in made]}; allowed: each average once')
  return made


def _average(entry: float | str | Average) -> Average:
  if isinstance(entry, Constant | Power):
    return entry
  kind, _, number = str(entry).rpartition(':')
  try:
    return {'': constant, 'constant': constant, 'power': power}[kind](float(number))
  except (KeyError, ValueError) as error:
    if str(error).startswith('ema:'):
      raise
    raise InputError(f"ema: got {entry!r}; allowed: a decay such as .999, or 'power:.05'") from None


def update(average: Average, mean: Any, params: Any, n: Array | int) -> Any:
  """The average after its n-th update, n from 1; leaf by leaf in float32."""
  rate = average.rate(n)
  return jax.tree.map(lambda m, p: m + (rate * (p.astype(jnp.float32) - m)).astype(m.dtype), mean, params)


def width_of(gamma: float) -> float:
  """The relative width of a power-function average.

  s = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))), the standard deviation of n^gamma on [0, 1].
  """
  return float(np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))))


def gamma_of(width: float) -> float:
  """The exponent of this width: the largest real root of g^3 + 7 g^2 + (16 - s^-2) g + 12 - s^-2."""
  roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
  return float(roots[np.abs(roots.imag) < 1e-9].real.max())
