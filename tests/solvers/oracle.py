"""Tables run by plain NumPy, apart from the library's scan, and the targets of the solver notes."""

import numpy as np

from diffjax import schedules, solvers
from diffjax.exact import mixture
from diffjax.solvers import grids

PROCESSES = {name: getattr(schedules, name) for name in schedules.__all__ if name != 'shifted'}
PROCESSES['shifted'] = lambda: schedules.shifted(schedules.flow(), 3.0)


def gm_a():
  """GM-A: the smooth 2-D mixture of the notes."""
  return mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])


def m1():
  """M1: the bimodal 1-D mixture of the notes."""
  return mixture([0.4, 0.6], [[-0.4], [0.3]], [0.12**2, 0.05**2])


def build(name, process, ts, **options):
  return getattr(solvers, name)(process, ts, **options)


def times(name, process, n, grid='uniform', to_zero=True):
  """A grid that the method accepts: Euler-Maruyama's reverse drift is infinite where alpha = 0."""
  ts = getattr(grids, grid)(process, n, to_zero=to_zero)
  if name == 'euler_maruyama' and grids.at(process, ts[:1])[0][0] == 0:
    ts[0] *= 0.999
  return ts


def row(weights, state, x0, eps):
  """One row on coefficient vectors: new registers (q, k), and the weights (q,) of their common noise."""
  q = len(weights)
  return weights[:, :q] @ state + np.outer(weights[:, q], x0) + np.outer(weights[:, q + 1], eps), weights[:, q + 3]


def line(table, process, ts):
  """The points visited, as (coefficient of x0, of eps), when every prediction is the same pair; then the last one.

  Noise is independent of eps and of unit variance too, so it joins eps in quadrature: exact for one register.
  """
  state = np.zeros((len(table.registers), 2))
  state[0] = [part[0] for part in grids.at(process, ts[:1])[:2]]
  points = [state[0]]
  for weights in np.asarray(table.rows.weights):
    state, noise = row(weights, state, [1, 0], [0, 1])
    state[0, 1] = np.hypot(state[0, 1], noise[0])
    points.append(state[0])
  return np.array(points)


def gaussian_law(table, process, var):
  """(gain, variance) with x_end = gain x_T + noise of that variance, data N(0, var), exact denoiser: no sampling."""
  n, q = table.rows.weights.shape[:2]
  state = np.zeros((q, 1 + n))  # coefficients of x_T and of each row's noise
  state[0, 0] = 1
  levels = zip(*grids.at(process, table.rows.t)[:2], strict=True)
  for i, (weights, (alpha, sigma)) in enumerate(zip(np.asarray(table.rows.weights), levels, strict=True)):
    total = alpha**2 * var + sigma**2
    state, noise = row(weights, state, alpha * var / total * state[0], sigma / total * state[0])
    state[:, 1 + i] += noise
  return state[0, 0], np.sum(state[0, 1:] ** 2)
