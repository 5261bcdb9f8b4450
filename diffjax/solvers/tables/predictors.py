"""The predictors of score-based SDEs: reverse steps of the discretised forward process.

The forward process from s to t > s, in the process's own levels, is x_t = a x_s + G z with

    a = alpha_t / alpha_s,   G^2 = sigma_t^2 - (a sigma_s)^2,

which is sqrt(1 - beta) and beta for a variance preserving process, 1 and sigma_t^2 - sigma_s^2 for an exploding one:
the published formulas on the published levels, and defined on any grid and process.
"""

from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.table import Table

__all__ = ['ancestral', 'reverse_diffusion']


def reverse_diffusion(process: Process, ts: Any, ode: bool = False, to_data: bool = False) -> Table:
  """The reverse diffusion predictor of score-SDE.

  x_s = (2 - a) x_t + G^2 score + G z, score = -eps / sigma_t; the last step has no noise.   arXiv:2011.13456 app. E

  First order. 2 - a stands for 1 / a, so it wants short steps where alpha changes.

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    ode: the probability-flow form: half of G^2 score, and no noise.
    to_data: one more step, from the last time to (alpha, sigma) = (1, 0), as published for exploding variance.

  Raises:
    InputError: to_data, and the grid ends at sigma = 0 already.
  """
  times, alpha, sigma = levels(process, ts, to_data)
  a, pull = _forward(alpha, sigma)
  table = TableBuilder('x')
  for i, t in enumerate(times):
    mean = (2 - a[i]) * table.x - (0.5 if ode else 1.0) * pull[i] * table.eps
    table.row(t, x=mean if ode or i == len(times) - 1 else mean + np.sqrt(pull[i] * sigma[i]) * table.z)
  return table.done()


def ancestral(process: Process, ts: Any, to_data: bool = False) -> Table:
  """The posterior mean, with the noise of the score-based SDEs; the last step has none.

  x_s = (x_t + G^2 score) / a + std z = alpha_s x0 + a (sigma_s^2 / sigma_t) eps + std z. Variance preserving: std = G,
  which is `ddpm_large`; exploding: std = G sigma_s / sigma_t, which is `ddpm`. Weak order one.

  arXiv:2011.13456 app. F

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    to_data: one more step, from the last time to (alpha, sigma) = (1, 0), as published for exploding variance.

  Raises:
    InputError: the process is of neither kind (sub-VP, rectified flow); or as `reverse_diffusion`.
  """
  times, alpha, sigma = levels(process, ts, to_data)
  exploding = np.allclose(alpha, 1, rtol=1e-6)
  if not exploding and not np.allclose(alpha**2 + sigma**2, 1, rtol=1e-6):
    i = int(np.argmax(np.abs(alpha**2 + sigma**2 - 1)))
    raise InputError(f'process: got {_name(process)}, with alpha = {alpha[i]:.4g} and sigma = {sigma[i]:.4g} at one '
                     'time; allowed: variance preserving (alpha^2 + sigma^2 = 1) or exploding (alpha = 1), or another '
                     'solver such as reverse_diffusion')  # fmt: skip
  a, pull = _forward(alpha, sigma)
  table = TableBuilder('x')
  for i, t in enumerate(times):
    mean = alpha[i + 1] * table.x0 + a[i] * sigma[i + 1] ** 2 / sigma[i] * table.eps
    std = np.sqrt(pull[i] * sigma[i]) * (sigma[i + 1] / sigma[i] if exploding else 1.0)
    table.row(t, x=mean if i == len(times) - 1 else mean + std * table.z)
  return table.done()


def levels(process: Process, ts: Any, to_data: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The times of evaluation, and one level (alpha, sigma) more than those: where the last step ends."""
  ts, alpha, sigma, _ = on_grid(process, ts)
  if not to_data:
    return ts[:-1], alpha, sigma
  if sigma[-1] == 0:
    raise InputError('to_data: got True; allowed: False, since the grid ends at sigma = 0')
  return ts, np.append(alpha, 1.0), np.append(sigma, 0.0)


def _forward(alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The factors a and G^2 / sigma_t of every step; the difference of squares keeps its digits."""
  a = alpha[:-1] / alpha[1:]
  return a, (sigma[:-1] - a * sigma[1:]) * (sigma[:-1] + a * sigma[1:]) / sigma[:-1]


def _name(process: Process) -> str:
  schedule = getattr(process.schedule, 'func', type(process.schedule))
  return getattr(schedule, '__name__', 'a process').strip('_')
