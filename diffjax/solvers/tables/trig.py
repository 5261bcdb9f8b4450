"""Adams methods in the angle between data and noise, where the whole path is bounded and both ends are ordinary points.

With s a typical standard deviation of the data, r = sqrt(alpha^2 s^2 + sigma^2) and theta = arctan(sigma / (alpha s)),
the point z = x / r and its velocity are

    z = cos(theta) x0 / s + sin(theta) eps,      dz/dtheta = v = cos(theta) eps - sin(theta) x0 / s

along the probability-flow ODE of any process: the TrigFlow form of arXiv:2410.11081. theta runs from pi/2, pure noise,
to 0, data. Data that are N(0, s^2) have v = 0; a point mass has v'' = -v. The weights here are exact for both.
"""

from collections.abc import Sequence
from math import factorial
from typing import Any

import numpy as np

from diffjax.contracts import Time
from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.grids import noise_share
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import order_of, to_data, whole

__all__ = ['trig_adams']


def trig_adams(
  process: Process,
  ts: Any,
  order: int | None = None,
  *,
  data_std: float = 0.5,
  corrector: bool = True,
  final_order: int = 1,
) -> Table:
  """Trigonometrically fitted Adams-Bashforth(-Moulton) in theta; one evaluation a step.

  A step replaces v by the combination of cos, sin, 1, theta, ... through its last values and integrates that,
  z' = z + sum_j w_j v_j; from one value alone it is DDIM. Hence every step is exact where (x0, eps) is constant. The
  corrector redoes each step with the value found at its end, which costs no evaluation. The first step limits the order
  of convergence to two, with the corrector to three; a higher `order` of the others lowers the error of exact scores
  from 8 steps on, and raises that of trained networks, which are less smooth.

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    order: how many values the predictor uses; fewer at the start. None is 2, or 1 on a grid of one step.
    data_std: s, about the standard deviation of the data.
    corrector: redo each step with the value found at its end.
    final_order: the order of the last step; low where the grid is coarse, since x0 changes most at the data.

  Raises:
    InputError: order or final_order is not a whole number from 1 to the number of steps, or data_std is not positive.
  """
  ts, alpha, sigma, _ = on_grid(process, ts)
  n = len(ts) - 1
  order, final_order = order_of(order, 2, n), whole('final_order', final_order, n)
  if not data_std > 0:
    raise InputError(f'data_std: got {data_std}; allowed: a positive number')
  angle, radius = np.arctan2(sigma, data_std * alpha), np.hypot(data_std * alpha, sigma)
  table = TableBuilder('x', *['base'] * corrector)  # base: the corrected point one node back

  def step(i: int, x: Combo, nodes: list[int], velocities: Sequence[Combo]) -> Combo:
    """From x at node i to node i + 1 by the velocities at these nodes."""
    weights = fitted_weights(angle[nodes] - angle[i], angle[i + 1] - angle[i])
    after = radius[i + 1] / radius[i] * x
    for w, v in zip(weights, velocities, strict=True):
      after = after + radius[i + 1] * w * v
    return after

  for i in range(n):
    v = table.history('v', order + corrector - 1, np.cos(angle[i]) * table.eps - np.sin(angle[i]) / data_std * table.x0)
    x = table.x
    if corrector and i > 0:
      p = min(order, i)
      x = step(i - 1, table.base, [i, *range(i - 1, i - 1 - p, -1)], v[: p + 1])
    p = min(order, i + 1, final_order if i == n - 1 else order)
    after = to_data(table, alpha, sigma, i, x) if p == 1 else step(i, x, list(range(i, i - p, -1)), v[:p])
    table.row(ts[i], x=after, **({'base': x} if corrector else {}), **v.shifted())
  return table.done()


def fitted_weights(nodes: np.ndarray, d: float) -> np.ndarray:
  """The weights of a quadrature that is exact for cos, sin and polynomials.

  w with sum_j w_j f(nodes_j) = the integral of f from 0 to d, for f in the span of cos, sin, 1, u, u^2, ...

  As many functions as nodes, taken as cos, sin, 1 - cos, u - sin, u^2/2 - (1 - cos), ...: the same span, function k
  begins with u^k / k!, so that a fine grid does not make them alike, and its integral is function k + 1.
  """
  functions = np.array([_turn(nodes, k) for k in range(len(nodes))])
  totals = np.array([_turn(d, k + 1) for k in range(len(nodes))])
  scale = np.abs(functions).max(1)
  return np.linalg.solve(functions / scale[:, None], totals / scale)


def _turn(u: Time, k: int) -> Any:
  """sum_j (-1)^j u^{k + 2j} / (k + 2j)!, |u| <= pi/2: cos u, sin u, 1 - cos u, u - sin u, ..."""
  return sum((-1) ** j * u ** (k + 2 * j) / factorial(k + 2 * j) for j in range(14))


def recommended(process: Process, nfe: int, data_std: float = 0.5, exact: bool = False) -> Table:
  """The solver to take when nothing else is known.

  `trig_adams` on the grid `noise_share`, for any process.

  The grid is a little coarser near the data than the angle's own: data_std 1.4 times as large, power 1.5. The order is
  that of least error in experiments/bench/defaults.py: of a trained network, which is less smooth than it looks, two
  with a last step of one; of an exact score the same below 6 evaluations, a last step of two from 6 on, and order four
  from 10 on.

  Args:
    process: the forward process.
    nfe: evaluations, as many as steps.
    data_std: the deviation of the data, which a run measures (`diffjax.runs.spread`). On data of 1, 2 and 3 the error
      with .5 is 1.5, 5 and 9 times that with their own.
    exact: whether the score is known in closed form, not learned.

  Raises:
    InputError: nfe is not a whole number of at least 1, or data_std is not positive.
  """
  ts = noise_share(process, nfe, data_std=1.4 * data_std, power=1.5)
  order, final_order = (4 if nfe >= 10 else 2, 2) if exact and nfe >= 6 else (2, 1)
  return trig_adams(process, ts, order=min(order, nfe), data_std=data_std, final_order=final_order)
