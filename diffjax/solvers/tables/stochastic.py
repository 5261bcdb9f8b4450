"""Steps of the reverse SDE in lam: DPM-Solver's noise and data forms. The data form of order one is `ddpm`.

With h = lam_s - lam_t the reverse SDE is solved by

    data   x_s = (sigma_s / sigma_t) e^{-h} x_t + 2 alpha_s int e^{-2 (lam_s - l)} x0 dl + sigma_s sqrt(1 - e^{-2h}) z
    noise  x_s = (alpha_s / alpha_t) x_t - 2 sigma_s int e^{lam_s - l} eps dl + sigma_s sqrt(e^{2h} - 1) z
"""

from math import factorial
from typing import Any

import numpy as np

from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.data_form import in_data_form
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import Form, check_form, order_at, order_of, phi

__all__ = ['sde_adams', 'sde_dpm', 'sde_dpmpp_2m']


def sde_adams(
  process: Process, ts: Any, order: int | None = None, *, form: Form = 'x0', lower_final: bool = True
) -> Table:
  """Exponential Adams method of the reverse SDE, of any order in its drift.

  The integrals above with x0 or eps replaced by the polynomial in lam through the last `order` predictions, weights w
  with sum_j w_j nu_j^p = 2 h p! phi_{p+1}(-2h) (data form) or 2 h p! phi_{p+1}(h) (noise form) at the nodes
  nu_j = (lam_j - lam_t) / h. The noise is that of the exact solution, so the law is exact where predictions do not
  change (data form). Weak order min(order, 2): along a path predictions are rough, and no combination of past ones
  knows what the noise does between two nodes.

  In data form order 1 is `ddpm` and order 2 `sde_dpmpp_2m(exact=True)`; in noise form order 1 is `sde_dpm`. A step
  that touches infinite lam is `ddpm`'s. The noise form is returned `in_data_form`.

  arXiv:2211.01095 app. D, arXiv:2309.05019

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    order: None is 3, or as many as there are steps.
    form: what is interpolated: 'x0', the data form, or 'eps', the noise form.
    lower_final: let the order fall to one over the last steps.

  Raises:
    InputError: order is not a whole number from 1 to the number of steps, or another form.
  """
  check_form(form)
  noise = form == 'eps'
  ts, alpha, sigma, lam = on_grid(process, ts)
  order = order_of(order, 3, len(ts) - 1)
  table = TableBuilder('x')
  predicted = table.history('m', order - 1, table.eps if noise else table.x0)
  for i in range(len(ts) - 1):
    h = lam[i + 1] - lam[i]
    plain = np.isfinite(lam[i : i + 2]).all()
    z = np.sqrt(np.expm1(2 * h)) if noise and plain else np.sqrt(-np.expm1(-2 * h))
    if not plain:
      after = sigma[i + 1] / sigma[i] * np.exp(-h) * table.x - alpha[i + 1] * np.expm1(-2 * h) * table.x0
    else:
      p = order_at(i, order, lam, lower_final)
      moments = [2 * h * factorial(k) * phi(k + 1, h if noise else -2 * h) for k in range(p)]
      nodes = (lam[i - p + 1 : i + 1][::-1] - lam[i]) / h
      ratio, scale = (
        (alpha[i + 1] / alpha[i], -sigma[i + 1]) if noise else (sigma[i + 1] / sigma[i] * np.exp(-h), alpha[i + 1])
      )
      after = ratio * table.x
      for w, m in zip(np.linalg.solve(np.vander(nodes, increasing=True).T, moments), predicted[:p], strict=True):
        after = after + scale * w * m
    table.row(ts[i], x=after + sigma[i + 1] * z * table.z, **predicted.shifted())
  return in_data_form(table.done(), process) if noise else table.done()


def sde_dpm(process: Process, ts: Any) -> Table:
  """SDE-DPM-Solver-1, noise form; the step to sigma = 0 returns x0.

  x_s = (alpha_s / alpha_t) x_t - 2 sigma_s expm1(h) eps + sigma_s sqrt(expm1(2 h)) z, h = lam_s - lam_t. Weak order
  one, and less stable than `ddpm`: long steps add noise of size alpha_s / alpha_t. Returned `in_data_form`.

  arXiv:2211.01095 app. D

  Raises:
    InputError: the grid starts where alpha = 0.
  """
  ts, alpha, sigma, _ = on_grid(process, ts)
  table = TableBuilder('x')
  for i in range(len(ts) - 1):
    if sigma[i + 1] == 0:
      table.row(ts[i], x=alpha[i + 1] * table.x0)
      continue
    with np.errstate(divide='ignore'):  # alpha = 0 is refused below
      ratio = alpha[i + 1] / alpha[i]
    grown = ratio * sigma[i]  # sigma_s e^h
    noise = np.sqrt((grown - sigma[i + 1]) * (grown + sigma[i + 1])) * table.z
    table.row(ts[i], x=ratio * table.x - 2 * (grown - sigma[i + 1]) * table.eps + noise)
  return in_data_form(table.done(), process)


def sde_dpmpp_2m(process: Process, ts: Any, exact: bool = False, lower_final: bool = True) -> Table:
  """SDE-DPM-Solver++(2M): data form, second order in its drift.

  With D = x0 + (x0 - previous x0) h / (2 h_before), and the first step, and the last one, with D = x0 (`ddpm`):

      x_s = (sigma_s / sigma_t) e^{-h} x_t + alpha_s (1 - e^{-2h}) D + sigma_s sqrt(1 - e^{-2h}) z.

  `exact` weighs the difference by its own integral, 1 - (1 - e^{-2h}) / (2 h), instead of (1 - e^{-2h}) / 2.
  `lower_final=False` keeps the order into the last node, unless lam is infinite there.

  arXiv:2211.01095 app. D
  """
  ts, alpha, sigma, lam = on_grid(process, ts)
  table = TableBuilder('x')
  m = table.history('m', 1, table.x0)
  for i in range(len(ts) - 1):
    h = lam[i + 1] - lam[i]
    gone = -np.expm1(-2 * h)
    after = sigma[i + 1] / sigma[i] * np.exp(-h) * table.x + alpha[i + 1] * gone * table.x0
    if order_at(i, 2, lam, lower_final) == 2:
      slope = (m[0] - m[1]) * (h / (lam[i] - lam[i - 1]))
      after = after + alpha[i + 1] * (1 - gone / (2 * h) if exact else gone / 2) * slope
    table.row(ts[i], x=after + sigma[i + 1] * np.sqrt(gone) * table.z, **m.shifted())
  return table.done()
