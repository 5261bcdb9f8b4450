"""Statistics known in closed form: what no network has to be asked for."""

import numpy as np

from diffjax.errors import InputError
from diffjax.fingerprint import stamp
from diffjax.noise_levels import at
from diffjax.process import Process
from diffjax.statistics.types import ModelStatistics, NoiseEnergy

__all__ = ['isotropic', 'knots', 'linear_form']


def knots(process: Process, n: int) -> np.ndarray:
  """Values of lam, n of them, evenly from t_max (just below it where lam is infinite there) to t_min.

  Raises:
    InputError: fewer than two.
  """
  if not (isinstance(n, int | np.integer) and n >= 2):
    raise InputError(f'knots: got {n!r}; allowed: a whole number of at least 2')
  t_max, t_min = float(process.t_max), float(process.t_min)
  near, first, last = at(process, [t_max * (1 - 1e-3), t_max, t_min])[2]
  return np.linspace(first if np.isfinite(first) else near, last, n)


def linear_form(process: Process, data: bool = True) -> ModelStatistics:
  """Terms that know no data: those under which DPM-Solver-v3 is the exponential method in data or in noise form.

  Data: l = 1, s = 0, so that f = -x0. Noise: l = 0, s = -1, so that f = e^{-lam} eps.
  """
  lam, one, zero = knots(process, 2), np.ones(2), np.zeros(2)
  return ModelStatistics(stamp(process), lam, l=one if data else zero, s=zero if data else -one, b=zero)


def isotropic(process: Process, var: float = 1.0) -> NoiseEnergy:
  """The noise energy of data N(mean, var I): Gamma = sigma^2 / (alpha^2 var + sigma^2)."""
  lam = knots(process, 2)
  return NoiseEnergy(stamp(process), lam, 1 / (1 + var * np.exp(2 * lam)))
