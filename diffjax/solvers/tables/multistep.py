"""Tables that reuse earlier predictions of x0: DPM-Solver++(2M, 3M) and UniPC."""

from typing import Any

import numpy as np

from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import Form, adams_weights, multistep, order_at, phi, to_data

__all__ = ['dpmpp_2m', 'dpmpp_3m', 'dpmpp_3m_compat', 'unipc']


def dpmpp_2m(process: Process, ts: Any, lower_final: bool = True) -> Table:
  """DPM-Solver++(2M): data prediction, second order, first order into the last node.

  x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) [x0 + (x0 - previous x0) h / (2 h_before)].

  `lower_final=False` keeps the order into the last node, unless lam is infinite there.

  arXiv:2211.01095 Alg. 2
  """
  ts, alpha, sigma, lam = on_grid(process, ts)
  table = TableBuilder('x')
  m = table.history('m', 1, table.x0)
  for i in range(len(ts) - 1):
    ratio = sigma[i + 1] / sigma[i]
    gain = alpha[i + 1] - alpha[i] * ratio  # -alpha expm1(-h), finite for sigma = 0 and alpha = 0
    second = order_at(i, 2, lam, lower_final) == 2
    k = 0.5 * (lam[i + 1] - lam[i]) / (lam[i] - lam[i - 1]) if second else 0.0
    table.row(ts[i], x=ratio * table.x + gain * ((1 + k) * m[0] - k * m[1]), **m.shifted())
  return table.done()


def dpmpp_3m(process: Process, ts: Any, lower_final: bool = True) -> Table:
  """DPM-Solver++(3M): data prediction, third order, falling to one into the last node.

  With r0, r1 the last two steps in units of h, d = (x0 - m1) / r0 and d' = (m1 - m2) / r1,

      x_s = (sigma_s / sigma_t) x_t + alpha_s h [phi_1 x0 + phi_2 D1 + 2 phi_3 D2],   phi_k at -h
      D1 = d + (d - d') r0 / (r0 + r1),   D2 = (d - d') / (r0 + r1).

  `lower_final=False` keeps the order over the last steps, as the official code does from 10 steps on; the step into
  infinite lam is of first order all the same.

  arXiv:2211.01095 app. B
  """
  return _dpmpp_3m(process, ts, 2.0, lower_final)


def dpmpp_3m_compat(process: Process, ts: Any, lower_final: bool = True) -> Table:
  """DPM-Solver++(3M) as the official code has it: D2, which is half of h^2 x0'', counted once. Second order only."""
  return _dpmpp_3m(process, ts, 1.0, lower_final)


def _dpmpp_3m(process: Process, ts: Any, c: float, lower_final: bool) -> Table:
  ts, alpha, sigma, lam = on_grid(process, ts)
  table = TableBuilder('x')
  m = table.history('m', 2, table.x0)
  for i in range(len(ts) - 1):
    after = to_data(table, alpha, sigma, i, table.x)
    p = order_at(i, 3, lam, lower_final)
    if p > 1:
      h = lam[i + 1] - lam[i]
      r0 = (lam[i] - lam[i - 1]) / h
      d1 = (m[0] - m[1]) / r0
      slope = phi(1, -h) / 2 * d1
      if p > 2:
        r1 = (lam[i - 1] - lam[i - 2]) / h
        d2 = (d1 - (m[1] - m[2]) / r1) / (r0 + r1)
        slope = phi(2, -h) * (d1 + r0 * d2) + c * phi(3, -h) * d2
      after = after + alpha[i + 1] * h * slope
    table.row(ts[i], x=after, **m.shifted())
  return table.done()


def unipc(process: Process, ts: Any, order: int | None = None, b1: bool = False, lower_final: bool = True) -> Table:
  """UniPC, data prediction: a predictor of this order and a corrector that raises it by one.

  The corrector reuses the evaluation made at the predicted point, so n steps cost n evaluations: each row first
  corrects the node it stands on, then predicts the next. Order min(order, i + 1) at the start and, with
  `lower_final`, min(order, n - i) at the end; no corrector after the last step.

  arXiv:2302.04867

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    order: None is 2, or 1 on a grid of one step.
    b1: scale single differences by h instead of 1 - e^{-h} (B2); the two agree where rho is solved for, which is
      wherever there are two differences or more.
    lower_final: let the order fall to one over the last steps.

  Raises:
    InputError: order is not a whole number from 1 to the number of steps.
  """
  weights = _b1_weights if b1 else _b2_weights
  return multistep(process, ts, order, weights, usual=2, form='x0', corrector=True, lower_final=lower_final)


def _b1_weights(nodes: np.ndarray, h: float, form: Form) -> np.ndarray:
  return _uni_weights(nodes, h, h)


def _b2_weights(nodes: np.ndarray, h: float, form: Form) -> np.ndarray:
  return _uni_weights(nodes, h, float(-np.expm1(-h)))


def _uni_weights(nodes: np.ndarray, h: float, b: float) -> np.ndarray:
  """The weights b rho_j / r_j: rho = 1/2 for a single difference, as published; of more, rho solves Adams's system."""
  if len(nodes) != 2:
    return adams_weights(nodes, h, 'x0')
  weight = b / 2 / nodes[1]
  return np.array([-np.expm1(-h) - weight, weight])
