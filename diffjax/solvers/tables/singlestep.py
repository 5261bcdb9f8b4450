"""Exponential Runge-Kutta methods in lam: DPM-Solver (noise form) and DPM-Solver++ (data form), singlestep.

A step of order p uses p steps of the grid: it goes from its first node to its last and evaluates at the p - 1 nodes
between, so that n steps of any grid cost n evaluations, as with multistep methods. On a grid uniform in lam the inner
nodes lie at 1/2, or 1/3 and 2/3, of the step in lam, the published values. A step that touches infinite lam is split:
the part that does is DDIM. Tables of the noise form are returned `in_data_form`: their steps leap. They extrapolate
far, which is warned of, where the first nodes of a long step lie close together, as on `noise_share` near pure noise.

`taylor` selects the published variant that matches the Taylor expansion of the exact solution term by term: phi_2 as
the weight of the first derivative at order two, and a second derivative with weight phi_3 at order three.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import checked, on_grid
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.data_form import in_data_form, warn_of_reach
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import Form, leg, order_of, phi

__all__ = ['dpm_solver', 'dpm_fast', 'dpmpp_2s', 'dpmpp_3s']


def dpm_solver(
  process: Process, ts: Any, order: int | None = None, taylor: bool = False, lower_final: bool = True
) -> Table:
  """DPM-Solver of order 1, 2 or 3, singlestep, noise form; a shorter step ends it.

  From t over u (and v) to s, with h = lam_s - lam_t, r h = lam_u - lam_t, D_u = eps_u - eps_t and phi_k at +h:

      order 2   x_s = (alpha_s / alpha_t) x_t - sigma_s h [phi_1 eps_t + phi_1 D_u / (2 r)]
      order 3   x_s = (alpha_s / alpha_t) x_t - sigma_s h [phi_1 eps_t + phi_2 D_v / r_v]

  and, with `taylor`, phi_2 D_u / r in place of phi_1 D_u / (2 r) at order 2, phi_2 D' + phi_3 D'' at order 3, where
  D'' = 2 (D_v / r_v - D_u / r_u) / (r_v - r_u) and D' = D_u / r_u - r_u D'' / 2.

  arXiv:2206.00927 Alg. 1-2

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    order: None is 2, or 1 on a grid of one step.
    taylor: derivatives by Taylor's form, as above.
    lower_final: end steps of order three by 2, 1 also where three divides the number of steps, as published for a
      number of evaluations (3, ..., 3, 2, 1); False leaves 3, ..., 3 there.

  Raises:
    InputError: another order, or one above the number of steps.
  """
  n = len(checked(process, ts)) - 1
  if order not in (None, 1, 2, 3):
    raise InputError(f'order: got {order!r}; allowed: 1, 2 or 3')
  return _singlestep(process, ts, orders_for(n, order_of(order, 2, n), lower_final), 'eps', taylor)


def dpm_fast(process: Process, ts: Any, taylor: bool = False) -> Table:
  """DPM-Solver-fast: steps of order three, the last ones of lower order.

  `dpm_solver` with steps of 3, ..., 3, 2, 1 for n divisible by three, else 3, ..., 3, n mod 3. The paper's steps are
  of equal length in lam, with nodes at a third and two thirds: a grid that is not quite `uniform_lam`, since the last
  steps are of lower order.

  arXiv:2206.00927 sec. 3.4
  """
  return _singlestep(process, ts, orders_for(len(checked(process, ts)) - 1, 3, True), 'eps', taylor)


def dpmpp_2s(process: Process, ts: Any, taylor: bool = False) -> Table:
  """DPM-Solver++(2S): data form, second order, singlestep.

  x_s = (sigma_s / sigma_t) x_t + alpha_s h phi_1(-h) [x0_t + (x0_u - x0_t) / (2 r)], u between t and s; with `taylor`,
  phi_2 in place of phi_1 / 2 before the difference.

  arXiv:2211.01095 Alg. 1
  """
  return _singlestep(process, ts, orders_for(len(checked(process, ts)) - 1, 2, True), 'x0', taylor)


def dpmpp_3s(process: Process, ts: Any, taylor: bool = False, lower_final: bool = True) -> Table:
  """DPM-Solver++(3S): data form, third order, singlestep; a shorter step ends it.

  x_s = (sigma_s / sigma_t) x_t + alpha_s h [phi_1(-h) x0_t + phi_2(-h) (x0_v - x0_t) / r_v], u and v between; with
  `taylor`, the two derivatives of `dpm_solver`, weighed by phi_2 and phi_3; `lower_final` as there.

  arXiv:2211.01095 app. B
  """
  return _singlestep(process, ts, orders_for(len(checked(process, ts)) - 1, 3, lower_final), 'x0', taylor)


def orders_for(n: int, order: int, lower_final: bool) -> list[int]:
  """Orders that sum to n: as many of this one as there is room for, then what is left; see `dpm_solver`."""
  if order == 3 and lower_final and n % 3 == 0:
    return [3] * (n // 3 - 1) + [2, 1]
  return [order] * (n // order) + [n % order] * (n % order > 0)


def _singlestep(process: Process, ts: Any, orders: Sequence[int], form: Form, taylor: bool) -> Table:
  ts, alpha, sigma, lam = on_grid(process, ts)
  # the point at the step's first node, the prediction there and, where it is needed, the change of it to the next node
  table = TableBuilder('x', 'base', 'm', *(['d'] if taylor and 3 in orders else []))
  now, sign = (table.eps, 1) if form == 'eps' else (table.x0, -1)
  reached = np.zeros(len(ts))  # by the step from each node, times the change of x0 = -sigma / alpha times that of eps
  i = 0
  for p in _split(orders, np.isfinite(lam)):
    if not np.isfinite(lam[i : i + p + 1]).all():
      table.row(ts[i], x=alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps)
      i += 1
      continue

    def reach(node: int, x: Combo, m: Combo, slope: Combo | None = None, i: int = i) -> Combo:
      """The point at a node: R x + c h (phi_1 m + slope), from x and m at node i; h to that node."""
      ratio, scale = leg(alpha, sigma, i, node, form)
      h = lam[node] - lam[i]
      return ratio * x + scale * h * (phi(1, sign * h) * m + (Combo({}) if slope is None else slope))

    table.row(ts[i], x=reach(i + 1, table.x, now), base=table.x, m=now)
    for stage in range(1, p):
      h, node = lam[i + stage + 1] - lam[i], i + stage + 1
      r = (lam[i + stage] - lam[i]) / h
      z, change, kept = sign * h, now - table.m, {}
      gain = (phi(1, z) / 2 if p == 2 and not taylor else phi(2, z)) / r
      reached[i] = max(reached[i], h * gain * np.exp(lam[i + stage] - lam[node]))
      slope = gain * change
      if p == 3 and taylor and stage == 1:
        kept = {'d': change}
      elif p == 3 and taylor:
        before = (lam[i + 1] - lam[i]) / h
        second = 2 * (change / r - table.d / before) / (r - before)
        slope = phi(2, z) * (table.d / before - before / 2 * second) + phi(3, z) * second
      table.row(ts[i + stage], evaluated=True, x=reach(node, table.base, table.m, slope), **kept)
    i += p
  if form == 'x0':
    return table.done()
  warn_of_reach('DPM-Solver', ts, reached)
  return in_data_form(table.done(), process)


def _split(orders: Sequence[int], finite: np.ndarray) -> list[int]:
  """The orders with a single step taken off where the first or the last node of a step has infinite lam."""
  out, i = [], 0
  for p in orders:
    head, tail = p > 1 and not finite[i], p > 1 and not finite[i + p]
    out += [*[1] * head, *[p - head - tail] * (p > head + tail), *[1] * tail]
    i += p
  return out
