"""Tables that reuse earlier predictions: DPM-Solver++(2M) and UniPC."""

from math import factorial
from typing import Any

import numpy as np

from diffjax.process import Process
from diffjax.solvers.grids import checked, on_grid
from diffjax.solvers.table import Table
from diffjax.solvers.tape import Combo, Tape

__all__ = ['dpmpp_2m', 'unipc']


def dpmpp_2m(process: Process, ts: Any) -> Table:
  """DPM-Solver++(2M): data prediction, second order, first order into the last node.   arXiv:2211.01095 Alg. 2

  x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) [x0 + (x0 - previous x0) h / (2 h_before)].
  """
  alpha, sigma, lam = on_grid(process, ts)
  ts = checked(process, ts)
  tape = Tape('x', 'm1')  # m1: the previous prediction
  for i in range(len(ts) - 1):
    ratio = sigma[i + 1] / sigma[i]
    gain = alpha[i + 1] - alpha[i] * ratio  # -alpha expm1(-h), finite for sigma = 0 and alpha = 0
    known = 0 < i < len(ts) - 2 and np.isfinite(lam[i - 1 : i + 2]).all()
    k = 0.5 * (lam[i + 1] - lam[i]) / (lam[i] - lam[i - 1]) if known else 0.0
    tape.row(ts[i], x=ratio * tape.x + gain * ((1 + k) * tape.x0 - k * tape.m1), m1=tape.x0)
  return tape.done()


def unipc(process: Process, ts: Any, order: int = 2, lower_final: bool = True) -> Table:
  """UniPC, data prediction, B2: a predictor of this order and a corrector that raises it by one.   arXiv:2302.04867

  The corrector reuses the evaluation made at the predicted point, so n steps cost n evaluations: each row first
  corrects the node it stands on, then predicts the next. Order min(order, i + 1) at the start and, with
  `lower_final`, min(order, n - i) at the end; no corrector after the last step.

  Raises:
    ValueError: order is not a whole number from 1 to the number of steps.
  """
  alpha, sigma, lam = on_grid(process, ts)
  ts = checked(process, ts)
  n = len(ts) - 1
  if not (isinstance(order, int) and 1 <= order <= n):
    raise ValueError(f'order: got {order!r}; allowed: a whole number from 1 to the {n} steps of the grid')
  past = [f'm{j}' for j in range(1, order + 1)]
  tape = Tape('x', 'base', *past)  # base: the corrected point one node back; m_j: x0 predicted j nodes back
  lags: list[Combo] = [tape.x0, *(getattr(tape, m) for m in past)]

  def orders(i: int) -> int:
    """The order of the step from node i to node i + 1; one where lam is not finite over what it looks at."""
    p = min(order, i + 1, n - i) if lower_final else min(order, i + 1)
    while p > 1 and not np.isfinite(lam[i - p + 1 : i + 2]).all():
      p -= 1
    return p

  def step(i: int, x: Combo, models: list[Combo], ahead: Combo | None) -> Combo:
    """From x at node i to node i + 1; models[j] is the prediction at node i - j, `ahead` the one at node i + 1."""
    p, ratio = orders(i), sigma[i + 1] / sigma[i]
    out = ratio * x + (alpha[i + 1] - alpha[i] * ratio) * models[0]
    h = lam[i + 1] - lam[i]
    if not np.isfinite(h) or (p == 1 and ahead is None):
      return out
    nodes, known = [(lam[i - j] - lam[i]) / h for j in range(1, p)], models[1:p]
    if ahead is not None:
      nodes, known = [*nodes, 1.0], [*known, ahead]
    differences = [(m - models[0]) / r for m, r in zip(known, nodes, strict=True)]
    for weight, difference in zip(_unic_weights(np.array(nodes), h), differences, strict=True):
      out = out - alpha[i + 1] * np.expm1(-h) * weight * difference
    return out

  for i in range(n):
    corrected = step(i - 1, tape.base, lags[1:], tape.x0) if i else tape.x
    after = {m: lags[j] for j, m in enumerate(past)}
    tape.row(ts[i], live=True, x=step(i, corrected, lags, None), base=corrected, **after)
  return tape.done()


def _unic_weights(nodes: np.ndarray, h: float) -> np.ndarray:
  """rho solving sum_j r_j^{q-1} rho_j = q! hh phi_{q+1}(hh) / expm1(hh), hh = -h, q = 1..len(nodes)."""
  k = len(nodes)
  if k == 1:
    return np.array([0.5])  # the published choice for one difference, exact to the same order
  hh, phi, b = -h, np.expm1(-h) / -h, []
  for q in range(1, k + 1):
    phi = _phi(q + 1, hh)
    b.append(factorial(q) * hh * phi / np.expm1(hh))
  return np.linalg.solve(np.vander(nodes, k, increasing=True).T, np.array(b))


def _phi(k: int, z: float) -> float:
  """phi_k(z) = sum_j z^j / (j + k)!: the series near 0, where the recursion cancels; the recursion elsewhere."""
  if abs(z) < 0.5:
    return sum(z**j / factorial(j + k) for j in range(20))
  value = np.exp(z)
  for j in range(k):
    value = (value - 1 / factorial(j)) / z
  return float(value)
