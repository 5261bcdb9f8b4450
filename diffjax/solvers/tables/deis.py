"""DEIS: x_s = alpha_s (x_t / alpha_t + int eps drho), rho = sigma / alpha, by polynomials or Runge-Kutta methods.

A step that touches infinite lam is DDIM's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at, on_grid, times_of
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.data_form import in_data_form, warn_of_leaps
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import order_of
from diffjax.solvers.tables.rungekutta import TABLEAUX, staged, stages

__all__ = ['deis_tab', 'deis_rhoab', 'deis_rhork']

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def deis_tab(process: Process, ts: Any, order: int | None = None) -> Table:
  """DEIS tAB: eps by the polynomial in t through the last `order` predictions.

  x_s = (alpha_s / alpha_t) x_t + alpha_s sum_j eps_j int l_j(tau) drho(tau), l_j Lagrange's polynomials; the integrals
  by 40-point Gauss-Legendre quadrature in lam. Order 1 is DDIM, 4 the published tAB3 and, or as many as there are
  steps, what None is. Returned `in_data_form`: where nodes are close in t and far apart in rho, the weights are large
  and of both signs.

  arXiv:2204.13902

  Raises:
    InputError: order is not a whole number from 1 to the number of steps.
  """
  return in_data_form(adams_bashforth(process, ts, order, tab_weights(process, ts)), process)


def tab_weights(process: Process, ts: Any) -> Callable[[int, int], np.ndarray]:
  """The weights (i, p) of DEIS tAB for the step from node i.

  int l_j(tau) drho(tau) over the step, l_j through the last p nodes, the latest first.
  """
  lam, ts = on_grid(process, ts).lam, np.asarray(ts, np.float64)
  lam = np.where(np.isfinite(lam), lam, 0.0)[:, None]  # steps from or to infinite lam ask for no weights
  half = (lam[1:] - lam[:-1]) / 2
  level = lam[:-1] + half * (NODES + 1)
  tau, drho = times_of(process, level), -half * WEIGHTS * np.exp(-level)

  def weights(i: int, p: int) -> np.ndarray:
    nodes = ts[i - p + 1 : i + 1][::-1]
    return np.array([np.sum(drho[i] * _lagrange(tau[i], nodes, j)) for j in range(p)])

  return weights


def deis_rhoab(process: Process, ts: Any, order: int | None = None) -> Table:
  """DEIS rhoAB: eps by the polynomial in rho through the last `order` predictions.

  x_s = (alpha_s / alpha_t) x_t + alpha_s sum_j w_j eps_j, w exact for polynomials in rho. Order 4 is rhoAB3
  and, or as many as there are steps, what None is.

  arXiv:2204.13902

  Raises:
    InputError: order is not a whole number from 1 to the number of steps.
  """
  rho = np.exp(-on_grid(process, ts).lam)

  def weights(i: int, p: int) -> np.ndarray:
    nodes, h = rho[i - p + 1 : i + 1][::-1], rho[i + 1] - rho[i]
    nodes = (nodes[np.isfinite(nodes)] - rho[i]) / h  # not the one where alpha = 0
    return h * np.linalg.solve(np.vander(nodes, increasing=True).T, 1 / np.arange(1, len(nodes) + 1))

  return adams_bashforth(process, ts, order, weights)


def deis_rhork(process: Process, ts: Any, tableau: str = 'heun') -> Table:
  """DEIS rhoRK: a Runge-Kutta method in rho = sigma / alpha.

  Of d(x / alpha) / drho = eps. `tableau` is midpoint, heun (EDM's step), kutta3 or rk4, of orders 2, 2, 3 and 4: s
  evaluations a step, one for the step to sigma = 0. Not for few steps from a large rho, where explicit methods are
  unstable. Returned `in_data_form`.

  arXiv:2204.13902

  Raises:
    InputError: no tableau of that name.
  """
  if tableau not in TABLEAUX:
    raise InputError(f'tableau: got {tableau!r}; allowed: {", ".join(TABLEAUX)}')
  rule = TABLEAUX[tableau]
  ts, alpha, sigma, lam = on_grid(process, ts)
  c, rho = np.array(rule.c), np.exp(-lam)
  plain = np.isfinite(lam[:-1]) & np.isfinite(lam[1:])
  first, last = (np.where(plain, part, 1.0)[:, None] for part in (rho[:-1], rho[1:]))
  inner = times_of(process, -np.log(first + (last - first) * c))
  nodes = np.select([c == 0, c == 1], [ts[:-1, None], ts[1:, None]], inner)
  ratios = np.concatenate([at(process, nodes)[0], alpha[1:, None]], 1)
  table = staged(rule)
  for i in range(len(ts) - 1):
    if not plain[i]:
      table.row(ts[i], x=alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps)
      continue

    def place(j: int, base: Combo, total: Combo, i: int = i) -> Combo:
      return ratios[i, j] / alpha[i] * base + ratios[i, j] * (rho[i + 1] - rho[i]) * total

    stages(table, rule, nodes[i], [table.eps] * len(c), place)
  return in_data_form(table.done(), process)


def adams_bashforth(process: Process, ts: Any, order: int | None, weights: Callable[[int, int], Any]) -> Table:
  """An Adams-Bashforth method in rho = sigma / alpha with these weights.

  x_s = (alpha_s / alpha_t) x_t + alpha_s sum_j w_j eps_j, w = weights(i, p), order p = min(order, i + 1) at node i.

  Order None is 4, or as many as there are steps. There may be fewer weights than p. A step
  that touches infinite lam is DDIM. Warns of steps that raise alpha more than 100-fold.
  """
  ts, alpha, sigma, lam = on_grid(process, ts)
  order = order_of(order, 4, len(ts) - 1)
  warn_of_leaps('Adams-Bashforth method in rho', ts, alpha, lam)
  table = TableBuilder('x')
  eps = table.history('e', order - 1, table.eps)
  for i in range(len(ts) - 1):
    after = alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps
    if np.isfinite(lam[i : i + 2]).all():
      after = alpha[i + 1] / alpha[i] * table.x
      for w, e in zip(weights(i, min(order, i + 1)), eps[:], strict=False):
        after = after + alpha[i + 1] * w * e
    table.row(ts[i], x=after, **eps.shifted())
  return table.done()


def _lagrange(t: np.ndarray, nodes: np.ndarray, j: int) -> np.ndarray:
  others = np.delete(nodes, j)
  return np.prod((t[:, None] - others) / (nodes[j] - others), axis=1)
