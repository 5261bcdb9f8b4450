"""Explicit Runge-Kutta methods of the probability-flow ODE in t, dx/dt = alpha' x0 + sigma' eps.

Where alpha and sigma have finite rates at t = 0, as on rectified flow, that is a point like any other. The step to it
then is of a rule whose stages all lie before t = 0, where no network was trained and eps = (x - alpha x0) / sigma is
0 / 0; one step of an order lower costs the whole no order. Elsewhere, as on variance preserving processes, the step to
sigma = 0 is DDIM's.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffjax.noise_levels import on_grid, on_host
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.table import Table

__all__ = ['heun_in_t', 'midpoint', 'rk4']


class Tableau(NamedTuple):
  """Butcher's tableau: nodes c, the row of weights that leads to each stage after the first, and the last row b."""

  c: tuple[float, ...]
  a: tuple[tuple[float, ...], ...]
  b: tuple[float, ...]


TABLEAUX = {
  'midpoint': Tableau((0, 1 / 2), ((1 / 2,),), (0, 1)),
  'heun': Tableau((0, 1), ((1,),), (1 / 2, 1 / 2)),
  'kutta3': Tableau((0, 1 / 2, 1), ((1 / 2,), (-1, 2)), (1 / 6, 4 / 6, 1 / 6)),
  'rk4': Tableau((0, 1 / 2, 1 / 2, 1), ((1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 2 / 6, 2 / 6, 1 / 6)),
}
# of orders two and three, with the least error terms of all rules of two and three stages
RALSTON2 = Tableau((0, 2 / 3), ((2 / 3,),), (1 / 4, 3 / 4))
RALSTON3 = Tableau((0, 1 / 2, 3 / 4), ((1 / 2,), (0, 3 / 4)), (2 / 9, 3 / 9, 4 / 9))


def midpoint(process: Process, ts: Any) -> Table:
  """The midpoint rule for the probability-flow ODE in t, as flow matching uses it.

  Second order, two evaluations a step; one for a last step of DDIM.

  arXiv:2210.02747
  """
  return _in_time(process, ts, TABLEAUX['midpoint'], TABLEAUX['midpoint'])


def heun_in_t(process: Process, ts: Any) -> Table:
  """Heun's method for the probability-flow ODE in t; `heun` is the one in sigma / alpha.

  Second order, two evaluations a step, in a step to t = 0 the second at a third of it (Ralston's rule); one for a last
  step of DDIM.

  arXiv:2210.02747
  """
  return _in_time(process, ts, TABLEAUX['heun'], RALSTON2)


def rk4(process: Process, ts: Any) -> Table:
  """The classical Runge-Kutta method for the probability-flow ODE in t, of order four.

  Four evaluations a step, three for one to t = 0 (Ralston's rule of order three), one for a last step of DDIM.

  arXiv:2210.02747
  """
  return _in_time(process, ts, TABLEAUX['rk4'], RALSTON3)


def _in_time(process: Process, ts: Any, rule: Tableau, last: Tableau) -> Table:
  """`rule` in every step but one to sigma = 0: `last` if t = 0 is an ordinary point, DDIM if not."""
  ts, alpha, sigma, _ = on_grid(process, ts)
  ordinary = np.isfinite(on_host(Process.rates, process, ts[-1:])).all()
  rules = [rule if s > 0 else last for s in sigma[1:]]
  nodes = [t + h * np.array(r.c) for t, h, r in zip(ts[:-1], np.diff(ts), rules, strict=True)]
  rates = np.stack(on_host(Process.rates, process, np.concatenate(nodes)))
  rates = np.split(rates, np.cumsum([len(part) for part in nodes])[:-1], axis=1)
  table = staged(rule)
  for i, h in enumerate(np.diff(ts)):
    if sigma[i + 1] == 0 and not ordinary:
      table.row(ts[i], x=alpha[i + 1] * table.x0)
      continue
    slopes = [a * table.x0 + s * table.eps for a, s in rates[i].T]
    stages(table, rules[i], nodes[i], slopes, lambda j, base, total, h=h: base + h * total)
  return table.done()


def staged(tableau: Tableau) -> TableBuilder:
  """A table with the registers of a tableau: the point before the step, and every slope but the last."""
  return TableBuilder('x', 'base', *(f'k{j}' for j in range(1, len(tableau.b))))


def stages(
  table: TableBuilder, tableau: Tableau, times: Sequence[float], slopes: Sequence[Combo], place: Callable[..., Combo]
) -> None:
  """The rows of one step: place(j, base, total) is the point of stage j (the next node for the last) from the slopes.

  `slopes[j]` is stage j's slope in terms of that row's prediction, `total` the weighted sum of slopes.
  """
  names = [f'k{j}' for j in range(1, len(tableau.b))]
  for j, weights in enumerate((*tableau.a, tableau.b)):
    base = table.base if j else table.x
    known = [*(getattr(table, name) for name in names[:j]), slopes[j]]
    total = sum((w * k for w, k in zip(weights, known, strict=True) if w), Combo({}))
    kept = dict(zip(names[j : j + 1], slopes[j:], strict=False))  # the last slope is not kept
    table.row(times[j], evaluated=True, x=place(j + 1, base, total), base=base, **kept)
