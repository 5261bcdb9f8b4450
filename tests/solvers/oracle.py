"""Tables run by plain NumPy, apart from the library's scan, and the targets of the solver notes."""

import functools

import numpy as np

from diffjax import noise_levels, schedules, solvers
from diffjax.exact import mixture
from diffjax.solvers import grids

PROCESSES = {name: getattr(schedules, name) for name in schedules.__all__ if name != 'shifted'}
PROCESSES['shifted'] = lambda: schedules.shifted(schedules.flow(), 3.0)


# Evaluations of five steps down to 0 on `vp_linear` and the like, where not five.
NFE = {'deis_rhork': 9, 'f_pndm': 14, 'heun': 9, 'heun_in_t': 9, 'midpoint': 9, 'rk4': 17, 's_pndm': 6}
# Orders of the deterministic tables.
ORDERS = {
  'ddim': 1,
  'deis_rhoab': 4,
  'deis_rhork': 2,
  'deis_tab': 4,
  'dpm_fast': 3,
  'dpm_solver': 2,
  'dpmpp_2m': 2,
  'dpmpp_2s': 2,
  'dpmpp_3m': 3,
  'dpmpp_3m_compat': 2,
  'dpmpp_3s': 3,
  'euler': 1,
  'exponential_adams': 3,
  'f_pndm': 2,  # the weights of order four are those of equal steps in rho
  'ghvb': 2,
  'heun': 2,
  'heun_in_t': 2,
  'ipndm': 2,
  'midpoint': 2,
  'rk4': 4,
  's_pndm': 2,
  'trig_adams': 3,
  'unipc': 3,  # of order 2, and its corrector adds one
}


def is_defined_on(name, kind):
  """Whether the method is defined for the process."""
  return name != 'ancestral' or kind not in ('sub_vp', 'flow', 'mean_reverting', 'shifted')


def gm_a():
  """GM-A: a smooth 2-D mixture of three, on which the reference values were computed."""
  return mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])


def m1():
  """M1: a bimodal 1-D mixture, on which the reference values were computed."""
  return mixture([0.4, 0.6], [[-0.4], [0.3]], [0.12**2, 0.05**2])


def build(name, process, ts, **options):
  return getattr(solvers, name)(process, ts, **options)


def legal_grid(name, process, n, grid='uniform', to_zero=True):
  """A grid that the method accepts: two stochastic ones have infinite coefficients where alpha = 0."""
  ts = getattr(grids, grid)(process, n, to_zero=to_zero)
  if name in ('euler_maruyama', 'sde_dpm') and noise_levels.at(process, ts[:1])[0][0] == 0:
    ts[0] *= 0.999
  return ts


def apply_row(weights, state, x0, eps):
  """One row on coefficient vectors: new registers (q, k), and the weights (q,) of their common noise."""
  q = len(weights)
  return weights[:, :q] @ state + np.outer(weights[:, q], x0) + np.outer(weights[:, q + 1], eps), weights[:, q + 3]


def line(table, process, ts):
  """The points visited, as (coefficient of x0, of eps), when every prediction is the same pair; then the last one.

  Noise is independent of eps and of unit variance too, so it joins eps in quadrature: exact for one register.
  """
  state = np.zeros((len(table.registers), 2))
  state[0] = [part[0] for part in noise_levels.at(process, ts[:1])[:2]]
  points = [state[0]]
  for weights in np.asarray(table.rows.weights):
    state, noise = apply_row(weights, state, [1, 0], [0, 1])
    state[0, 1] = np.hypot(state[0, 1], noise[0])
    points.append(state[0])
  return np.array(points)


def gaussian_law(table, process, var):
  """(gain, variance) with x_end = gain x_T + noise of that variance, data N(0, var), exact denoiser: no sampling."""
  n, q = table.rows.weights.shape[:2]
  state = np.zeros((q, 1 + n))  # coefficients of x_T and of each row's noise
  state[0, 0] = 1
  levels = zip(*noise_levels.at(process, table.rows.t)[:2], strict=True)
  for i, (weights, (alpha, sigma)) in enumerate(zip(np.asarray(table.rows.weights), levels, strict=True)):
    total = alpha**2 * var + sigma**2
    state, noise = apply_row(weights, state, alpha * var / total * state[0], sigma / total * state[0])
    state[:, 1 + i] += noise
  return state[0, 0], np.sum(state[0, 1:] ** 2)


WEIGHTS, MEANS, VAR = np.array([0.5, 0.3, 0.2]), np.array([[1, 0.5], [-0.8, -1], [-0.5, 1.2]]), [0.16, 0.09, 0.25]


def predict(x, alpha, sigma):
  """(x0, eps) of GM-A at x (B, 2), by Bayes' rule in NumPy; called 100,000 times."""
  signal = alpha * np.array(VAR)
  total = alpha * signal + sigma * sigma
  gap = x[:, None] - alpha * MEANS
  log = np.log(WEIGHTS / total) - np.einsum('bkd,bkd->bk', gap, gap) / (2 * total)
  share = np.exp(log - log.max(1, keepdims=True))
  share /= share.sum(1, keepdims=True)
  part = np.einsum('bkd,bk->bd', gap, share * (signal / total))
  return share @ MEANS + part, sigma * np.einsum('bkd,bk->bd', gap, share / total)


def run_table(table, process, x, predict=predict):
  """The sample of a deterministic table from x (B, d) in float64."""
  q = len(table.registers)
  known = np.zeros((q + 3, *x.shape))  # the registers, x0, eps and 1
  known[0], known[-1] = x, 1
  levels = zip(*noise_levels.at(process, table.rows.t)[:2], strict=True)
  weights = np.asarray(table.rows.weights)[:, :, :-1]
  for after, evaluated, (alpha, sigma) in zip(weights, table.rows.evaluated, levels, strict=True):
    known[q : q + 2] = predict(known[0], alpha, sigma) if evaluated else 0
    known[:q] = np.einsum('qk...,kb...->qb...', after, known)
  return known[0]


def prior_points(process, n):
  """n points of the prior."""
  return float(process.schedule(process.t_max)[1]) * np.random.default_rng(0).standard_normal((n, 2))


@functools.cache
def solution(kind, n, first, last):
  """Where the probability-flow ODE takes `start` on GM-A from time `first` to time `last`, to 1e-9."""
  process = PROCESSES[kind]()
  lam = noise_levels.at(process, [first, last])[2]
  ts = np.concatenate([[first], noise_levels.times_of(process, np.linspace(*lam, 801))[1:-1], [last]])
  return run_table(solvers.deis_rhork(process, ts, tableau='rk4'), process, prior_points(process, n))


def distance_to_solution(table, kind, last, n=512):
  """Root mean square distance to the solution at the time `last`, where the table ends."""
  process = PROCESSES[kind]()
  gap = run_table(table, process, prior_points(process, n)) - solution(kind, n, float(table.rows.t[0]), float(last))
  return float(np.sqrt(np.mean(np.sum(gap**2, -1))))
