"""The statistics themselves: NumPy float64 on the host, functions of lam given at rising knots."""

from typing import Any

import numpy as np

from diffjax.contracts import Time
from diffjax.errors import InputError
from diffjax.fingerprint import matching
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['COMMAND', 'NoiseEnergy', 'Gaussian', 'ModelStatistics', 'Spread', 'given']

COMMAND = 'diffjax statistics --workdir=WORKDIR'

LEAST = 1e-12  # of an energy and of its distance from 1


class NoiseEnergy(PyTree):
  """The mean squared norm of the predicted noise by noise level.

  Gamma(lam) = E |eps(x_t)|^2 / d, from 0 near the data to 1 in the noise.   arXiv:2201.06503

  Attributes:
    stamp: (5, 3), the process (`diffjax.fingerprint`).
    lam: (M,) rising.
    value: (M,), Gamma there.
    low, high: the least and the greatest value of the data, -inf and inf where there is none.
    scale: the guidance scale of the network, 1 without guidance.
  """

  stamp: Any
  lam: Any
  value: Any
  low: Any = -np.inf
  high: Any = np.inf
  scale: Any = 1.0

  def energy(self, lam: Any) -> np.ndarray:
    """Gamma at any lam, also infinite: 1 / (1 + c^2 e^{2 lam}), log c^2 linear between the knots.

    That is exact for Gaussian data of variance c^2; beyond the knots c^2 stays what it is at the last one.
    """
    with np.errstate(over='ignore'):
      return 1 / (1 + self._var(lam) * np.exp(2 * np.asarray(lam, np.float64)))

  def spread(self, lam: Any) -> np.ndarray:
    """The mean variance of one element of x0 given x_t, (sigma / alpha)^2 (1 - Gamma); 0 where Gamma is 1 or more."""
    return self._var(lam) * self.energy(lam)

  def _var(self, lam: Any) -> np.ndarray:
    value = np.clip(self.value, LEAST, 1 - LEAST)
    return np.exp(np.interp(lam, self.lam, np.log1p(-value) - np.log(value) - 2 * self.lam))


class ModelStatistics(PyTree):
  """The linear term l, scaling s and bias b of DPM-Solver-v3, element by element.

  f = (sigma eps - l x) / alpha moves along the probability-flow ODE as df/dlam ~ s f + b.

  arXiv:2310.13268

  Attributes:
    stamp: (5, 3), the process (`diffjax.fingerprint`).
    lam: (M,) rising.
    l, s, b: (M, ...) with the shape of one example behind, or (M,) for all elements alike.
    scale: the guidance scale of the network, 1 without guidance.
  """

  stamp: Any
  lam: Any
  l: Any  # noqa: E741
  s: Time
  b: Any
  scale: Any = 1.0

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one example, () where the terms are the same for all elements."""
    return self.l.shape[1:]


class Gaussian(PyTree):
  """The Gaussian of a data set along its principal axes; no variance outside them.

  N(mean, basis diag(var) basis^T).

  Attributes:
    mean: the shape of one example.
    basis: (d, r) orthonormal columns.
    var: (r,) falling.
  """

  mean: Any
  basis: Any
  var: Any

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one example."""
    return np.shape(self.mean)


class Spread(PyTree):
  """Where a data set lies and how wide it is.

  Attributes:
    mean: of each element, the shape of one example.
    std: one number, the root of the variance about that mean, averaged over the elements.
  """

  mean: Any
  std: Any


def given(process: Process, statistics: Any, kind: type) -> None:
  """Nothing, if these are statistics of this kind and process.

  Raises:
    InputError: they are of another kind, None for example, or of another process; it says which command makes them.
  """
  if not isinstance(statistics, kind):
    raise InputError(f'statistics: got {type(statistics).__name__}; allowed: {kind.__name__}, made by {COMMAND}')
  matching(process, statistics.stamp, 'statistics', COMMAND)
