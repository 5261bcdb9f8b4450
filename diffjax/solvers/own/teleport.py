"""Analytical teleportation: the noisiest part of a trajectory, where data look Gaussian, in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import KeyBatch, Time
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.process import Process
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
  """From x_t (B, ...) to x_s, s < t, along the probability-flow ODE of N(m, U diag(v) U^T); s = 0 allowed.

  x_s = alpha_s m + (sigma_s / sigma_t) y + U diag(q - sigma_s / sigma_t) U^T y with y = x_t - alpha_t m and
  q = sqrt[(alpha_s^2 v + sigma_s^2) / (alpha_t^2 v + sigma_t^2)].
  """
  alpha, sigma = process.schedule(jnp.asarray(t))
  alpha_s, sigma_s = process.schedule(jnp.asarray(s))
  mean, basis, var = (jnp.asarray(v, x.dtype) for v in (gaussian.mean, gaussian.basis, gaussian.var))
  gain = jnp.sqrt((alpha_s**2 * var + sigma_s**2) / (alpha**2 * var + sigma**2)) - sigma_s / sigma
  y = (x - alpha * mean).reshape(x.shape[0], -1)
  exact = jax.lax.Precision.HIGHEST  # TF32 and bf16 are too coarse for states
  inside = jnp.matmul(jnp.matmul(y, basis, precision=exact) * gain, basis.T, precision=exact)
  return (alpha_s * mean + (sigma_s / sigma * y + inside).reshape(x.shape)).astype(x.dtype)


class Teleport(struct.PyTreeNode):
  """Made by `teleport`."""

  solver: Any
  process: Process
  gaussian: Gaussian

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
    """Evaluations of the solver; the leap has none."""
    return self.solver.nfe

  def init(self, x: Array, key_batch: KeyBatch | None = None) -> Any:
    """The solver's start at its own first time."""
    first = jnp.asarray(self.rows.t)[0]
    return self.solver.init(leap(self.process, self.gaussian, x, self.process.t_max, first), key_batch)

  def point(self, state: Any) -> Any:
    return self.solver.point(state)

  def transition(self, state: Any, pred: Pred, row: Any) -> tuple[Any, Any]:
    return self.solver.transition(state, pred, row)

  def update(self, state: Any, pred: Pred, row: Any, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    return self.solver.update(state, pred, row, key_batch, noise)

  def output(self, state: Any) -> Any:
    return self.solver.output(state)
