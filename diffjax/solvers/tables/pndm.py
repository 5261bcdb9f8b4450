"""Pseudo numerical methods: classical Adams-Bashforth or Runge-Kutta combinations of eps, carried by DDIM's transfer.

transfer(x, e, t, s) = (alpha_s / alpha_t) x + (sigma_s - sigma_t alpha_s / alpha_t) e. The classical weights assume
equal steps in rho = sigma / alpha; on other grids the methods are of second order at most. The tables of S-PNDM and
F-PNDM are returned `in_data_form`: their first steps leap.
"""

from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at, on_grid
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.data_form import in_data_form
from diffjax.solvers.table import Table
from diffjax.solvers.tables.deis import adams_bashforth

__all__ = ['ipndm', 's_pndm', 'f_pndm']

ADAMS_BASHFORTH = (
  (1.0,),
  (3 / 2, -1 / 2),
  (23 / 12, -16 / 12, 5 / 12),
  (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def ipndm(process: Process, ts: Any, order: int | None = None) -> Table:
  """iPNDM, also PLMS: transfer by the Adams-Bashforth combination of the last `order` eps.

  (55 eps - 59 e1 + 37 e2 - 9 e3) / 24 after start-up with the combinations of order 1, 2, 3. None
  is order 4, or as many as there are steps.

  arXiv:2204.13902 app. H.2

  Raises:
    InputError: order is not 1, 2, 3 or 4, or above the number of steps.
  """
  if order not in (None, 1, 2, 3, 4):
    raise InputError(f'order: got {order!r}; allowed: 1, 2, 3 or 4')
  rho = np.exp(-on_grid(process, ts).lam)
  return adams_bashforth(process, ts, order, lambda i, p: (rho[i + 1] - rho[i]) * np.array(ADAMS_BASHFORTH[p - 1]))


def s_pndm(process: Process, ts: Any) -> Table:
  """S-PNDM: a Heun step, then transfer by (3 eps - e1) / 2. n steps need n + 1 evaluations.

  On a grid from alpha = 0 the first step is DDIM's, of one evaluation, as is any step to sigma = 0.

  arXiv:2202.09778 app. A
  """
  return _pndm(process, ts, 1, ADAMS_BASHFORTH[1])


def f_pndm(process: Process, ts: Any) -> Table:
  """F-PNDM: three pseudo Runge-Kutta steps, then transfer by (55 eps - 59 e1 + 37 e2 - 9 e3) / 24.

  A Runge-Kutta step transfers by (a + 2 b + 2 c + d) / 6 with b and c at the mean of the two times; n > 3 steps
  need n + 9 evaluations, fewer are all of that kind. A step that touches infinite lam is DDIM's.

  arXiv:2202.09778
  """
  return _pndm(process, ts, 3, ADAMS_BASHFORTH[3])


def _pndm(process: Process, ts: Any, start: int, weights: tuple[float, ...]) -> Table:
  """`start` pseudo Runge-Kutta steps, Heun's if one, the classical one otherwise; then Adams-Bashforth."""
  ts, alpha, sigma, lam = on_grid(process, ts)
  # base, sum: the point before a Runge-Kutta step, and the part of its slope so far
  table = TableBuilder('x', 'base', 'sum')
  lags = table.history('e', len(weights) - 1, table.eps)
  for i in range(len(ts) - 1):
    kept = lags.shifted()
    if not np.isfinite(lam[i : i + 2]).all():
      table.row(ts[i], x=alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps, **kept)
      continue

    def transfer(x: Combo, eps: Combo, a: float, s: float, i: int = i) -> Combo:
      return a / alpha[i] * x + (s - a * sigma[i] / alpha[i]) * eps

    ahead = (alpha[i + 1], sigma[i + 1])
    if i >= start:
      slope = sum((w * e for w, e in zip(weights, lags[:], strict=True)), Combo({}))
      table.row(ts[i], x=transfer(table.x, slope, *ahead), **kept)
    elif start == 1:
      table.row(ts[i], x=transfer(table.x, table.eps, *ahead), base=table.x, sum=table.eps / 2, **kept)
      table.row(ts[i + 1], x=transfer(table.base, table.sum + table.eps / 2, *ahead))
    else:
      middle = (ts[i] + ts[i + 1]) / 2
      half = [part[0] for part in at(process, [middle])[:2]]
      table.row(ts[i], x=transfer(table.x, table.eps, *half), base=table.x, sum=table.eps / 6, **kept)
      table.row(middle, x=transfer(table.base, table.eps, *half), sum=table.sum + table.eps / 3)
      table.row(middle, x=transfer(table.base, table.eps, *ahead), sum=table.sum + table.eps / 3)
      table.row(ts[i + 1], x=transfer(table.base, table.sum + table.eps / 6, *ahead))
  return in_data_form(table.done(), process)
