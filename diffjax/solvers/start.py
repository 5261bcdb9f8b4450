"""Where a solver's way begins: the law of x at the first time of its grid, which need not be t_max."""

import warnings
from typing import Any

import jax
import numpy as np
from jax import Array

from diffjax import keys
from diffjax.contracts import Data
from diffjax.noise_levels import at
from diffjax.process import Process
from diffjax.solvers.sample import Solver

__all__ = ['first_time', 'from_source', 'start', 'start_time']

PURE = 0.1  # alpha std / sigma up to which noise alone stands for x_t, with std 1 where it is not told
GAUSSIAN = 0.5  # and up to which a Gaussian does: a fifth of the variance is then the data's


def start(process: Process, solver: Solver, key: Array, like: Data, mean: Any = 0.0, std: Any = 0.0) -> Any:
  """Draws x to begin this solver with, (B, ...) as `like`: a draw of the data's Gaussian at the first time of its grid.

      x = alpha_t mean + sqrt(alpha_t^2 std^2 + sigma_t^2) z

  Without mean and deviation that is sigma_t z. A point of your own, an image with noise on it for example, needs no
  start: hand it to `sample`.

  Args:
    process: the forward process.
    solver: the method on its grid.
    key: one typed key, or one a sample (B,).
    like: what x shall be like, (B, ...) arrays or shapes.
    mean: of the data; a number, an array like one example, or pytrees of these by modality.
    std: see `mean`.

  Warns:
    UserWarning: as `start_time` does.
  """
  key_batch = keys.per_sample(key, jax.tree.leaves(like)[0].shape[0])
  return process.start(key_batch, like, start_time(process, solver, std), mean, std)


def from_source(process: Process, solver: Solver, key: Array, source: Data) -> Any:
  """SDEdit's start: each source with noise on it, x = alpha_t source + sigma_t z at the first time of the grid.

  The later the grid begins, the nearer samples stay to their source; `grids.begun` cuts one off. On Gaussian data of
  variance v about 0, k = alpha^2 v / (alpha^2 v + sigma^2), the ODE ends at mean sqrt(k v) alpha g / sqrt(alpha^2 v +
  sigma^2), and an SDE at k g.   arXiv:2108.01073

  Args:
    process: the forward process.
    solver: the method on its grid.
    key: one typed key, or one a sample (B,).
    source: (B, ...), like the data.
  """
  key_batch = keys.per_sample(key, jax.tree.leaves(source)[0].shape[0])
  return process.start(key_batch, source, first_time(solver), source)


def first_time(solver: Solver) -> Any:
  """The time at which x is handed to the solver: its own `first` where it has one, else that of its first row."""
  first = getattr(solver, 'first', None)
  return solver.rows.t[0] if first is None else first


def start_time(process: Process, solver: Solver, std: Any = 0.0) -> Any:
  """The time at which x is handed to the solver, `first_time`, if noise or a Gaussian may stand for x_t there.

  Warns:
    UserWarning: x_t is there neither noise nor the Gaussian of the data: alpha std / sigma is above .5, or above .1
      where the deviation is not told (then with std 1). Not inside a trace.
  """
  t = first_time(solver)
  try:
    known = max(float(np.max(leaf)) for leaf in jax.tree.leaves(std))
    alpha, sigma, _ = (float(v[0]) for v in at(process, [float(t)]))
  except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
    return t
  share, most = alpha * (known or 1.0) / max(sigma, 1e-30), GAUSSIAN if known else PURE
  if share > most:
    what = f'the Gaussian of the data, of deviation {known:.3g},' if known else 'noise alone (data of deviation 1)'
    tell = '' if known else ', tell the mean and deviation of the data'
    warnings.warn(f'the grid begins at t = {float(t):.4g}, where alpha std / sigma = {share:.3g}: {what} stands for x '
                  f'up to {most:g} only; begin earlier{tell} or hand over an x of your own', stacklevel=3)  # fmt: skip
  return t
