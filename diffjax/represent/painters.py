"""Images like painters: how a kick at time t changes the sample, feature by feature."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Time
from diffjax.errors import InputError
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.solvers import Solver, sample

__all__ = ['gaussian_response', 'response']


def response(denoise: Denoise, solver: Solver, x: Data, kick: Data, cond: Cond = None) -> tuple[Data, Data]:
  """The sample of x_t, and its derivative in x_t along `kick`: one jvp through the whole sampler.

  t is the first time of the solver's grid: a solver laid out on the rest of a grid tells what a kick at its t does. Of
  Gaussian data the derivative is that of `gaussian_response` in each direction.

  arXiv:2303.02490

  Args:
    denoise: what is asked for predictions.
    solver: deterministic, begins where x is.
    x: (B, ...).
    kick: like x.
    cond: of each sample.

  Raises:
    InputError: a solver that draws noise.
  """
  if solver.stochastic:
    raise InputError('solver: got one that draws noise; allowed: deterministic ones')
  return jax.jvp(lambda x: sample(denoise, solver, x, cond=cond), (x,), (kick,))


def gaussian_response(process: Process, var: Any, t: Time) -> Array:
  """How much a kick at t changes the sample of Gaussian data, in a direction of this variance.

      xi = sqrt(L / (alpha^2 L + sigma^2)),  dx_0 / dx_t = U diag(xi) U^T

  In units of sigma_t, sigma xi rises with the noise, to sqrt(L), for every L: the earlier a kick, the more it does. Of
  a fixed size, on variance preserving processes, that holds where L > 1, and on exploding ones nowhere.

  arXiv:2303.02490
  """
  alpha, sigma = process.schedule(jnp.asarray(t))
  var = jnp.asarray(var, float)
  return jnp.sqrt(var / (alpha**2 * var + sigma**2))
