"""Explicit Runge-Kutta methods of the probability-flow ODE in t; the step to sigma = 0 is DDIM's."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffjax.noise_levels import on_grid, on_host
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.table import Table

__all__ = ['midpoint', 'rk4']


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


def midpoint(process: Process, ts: Any) -> Table:
  """The midpoint rule for dx/dt = alpha' x0 + sigma' eps, as flow matching uses it.

  Second order; n steps down to sigma = 0 need 2 n - 1 evaluations.

  arXiv:2210.02747
  """
  return _in_time(process, ts, TABLEAUX['midpoint'])


def rk4(process: Process, ts: Any) -> Table:
  """The classical Runge-Kutta method for dx/dt = alpha' x0 + sigma' eps. Order four.

  n steps down to sigma = 0 need 4 n - 3 evaluations.

  arXiv:2210.02747
  """
  return _in_time(process, ts, TABLEAUX['rk4'])


def _in_time(process: Process, ts: Any, tableau: Tableau) -> Table:
  ts, alpha, sigma, _ = on_grid(process, ts)
  c = np.array(tableau.c)
  nodes = ts[:-1, None] + np.diff(ts)[:, None] * c
  d_alpha, d_sigma = on_host(Process.rates, process, np.where(nodes > 0, nodes, ts[:-1, None]))
  table = staged(tableau)
  for i, h in enumerate(np.diff(ts)):
    if sigma[i + 1] == 0:
      table.row(ts[i], x=alpha[i + 1] * table.x0)
      continue
    slopes = [d_alpha[i, j] * table.x0 + d_sigma[i, j] * table.eps for j in range(len(c))]
    stages(table, tableau, nodes[i], slopes, lambda j, base, total, h=h: base + h * total)
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
