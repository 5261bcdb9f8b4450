"""Analytical teleportation: the noisiest part of a trajectory, where data look Gaussian, in closed form."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax.contracts import KeyBatch, Time
from diffjax.errors import InputError
from diffjax.exact import flow_along
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers.noise import Noise, independent
from diffjax.solvers.sample import Solver
from diffjax.statistics.types import Gaussian

__all__ = []


def teleport(solver: Solver, process: Process, gaussian: Gaussian) -> 'Teleport':
  """`solver`, laid out on a grid that starts late, begun by a leap from t_max to its first time.

  The leap is the probability-flow ODE of N(mean, covariance) solved exactly (`leap`), without an evaluation; then the
  solver runs as it is, a multistep one with an empty history.

  arXiv:2412.09726

  Raises:
    InputError: the basis does not fit the mean.
  """
  if gaussian.basis.shape != (gaussian.mean.size, gaussian.var.size):
    raise InputError(f'gaussian: got a basis of shape {gaussian.basis.shape}; allowed: '
                     f'{(gaussian.mean.size, gaussian.var.size)}, elements by axes')  # fmt: skip
  return Teleport(solver, process, gaussian)


def leap(process: Process, gaussian: Gaussian, x: Array, t: Time, s: Time) -> Array:
  """Takes x_t (B, ...) to x_s, s < t, along the probability-flow ODE of the Gaussian (`exact.flow_along`)."""
  return flow_along(process, gaussian, x, t, s)


class Preceded(PyTree):
  """A solver that starts late, after a way from t_max to its first time that takes no evaluation (`init`)."""

  solver: Any
  process: Process

  @property
  def rows(self) -> Any:
    return self.solver.rows

  @property
  def first(self) -> Any:
    """The time at which the way begins: that of the leap, not of the solver's rows."""
    return self.process.t_max

  @property
  def stochastic(self) -> bool:
    return self.solver.stochastic

  @property
  def skips(self) -> bool:
    return self.solver.skips

  @property
  def nfe(self) -> int:
    """Evaluations of the solver; what comes before has none."""
    return self.solver.nfe

  def point(self, state: Any) -> Any:
    return self.solver.point(state)

  def transition(self, state: Any, pred: Pred, row: Any) -> tuple[Any, Any]:
    return self.solver.transition(state, pred, row)

  def update(self, state: Any, pred: Pred, row: Any, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    return self.solver.update(state, pred, row, key_batch, noise)

  def output(self, state: Any) -> Any:
    return self.solver.output(state)


class Teleport(Preceded):
  """Made by `teleport`."""

  gaussian: Gaussian

  def init(self, x: Array, key_batch: KeyBatch | None = None) -> Any:
    """The solver's start at its own first time."""
    first = jnp.asarray(self.rows.t)[0]
    return self.solver.init(leap(self.process, self.gaussian, x, self.process.t_max, first), key_batch)
