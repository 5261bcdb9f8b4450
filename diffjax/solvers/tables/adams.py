"""Exponential Adams methods: the exact multistep weights in lam, and the one loop that all of their kind share.

With h = lam_s - lam_t the probability-flow ODE is solved by

    data form   x_s = (sigma_s / sigma_t) x_t + alpha_s int e^{-(lam_s - l)} x0(l) dl
    noise form  x_s = (alpha_s / alpha_t) x_t - sigma_s int e^{lam_s - l} eps(l) dl

and a method replaces x0 or eps by a polynomial in l through the predictions it has.
"""

from collections.abc import Callable, Sequence
from math import factorial
from typing import Any, Literal

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.data_form import warn_of_leaps
from diffjax.solvers.table import Table

__all__ = ['exponential_adams']

Form = Literal['x0', 'eps']  # which of the two is interpolated: x0 in data form, eps in noise form
FORMS = ('x0', 'eps')
Weights = Callable[[np.ndarray, float, Form], np.ndarray]  # (nodes, h, form) -> weights of the predictions there


def exponential_adams(
  process: Process,
  ts: Any,
  order: int | None = None,
  *,
  form: Form = 'x0',
  corrector: bool = False,
  lower_final: bool = True,
) -> Table:
  """The exact exponential Adams-Bashforth method of any order, data or noise form.

  x_s = R x_t + c sum_j w_j m_j over the last `order` predictions, R and c as in the two forms above and w exact for
  polynomials in lam (`adams_weights`). DPM-Solver++ and UniPC differ from it by terms of higher order.

  arXiv:2204.13902, arXiv:2302.04867

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    order: None is 3, or as many as there are steps.
    form: what is interpolated: 'x0', the data form, or 'eps', the noise form.
    corrector: also correct each node by the evaluation made there (Adams-Moulton), which raises the order by one
      and costs no evaluation.
    lower_final: let the order fall to one over the last steps.

  Raises:
    InputError: order is not a whole number from 1 to the number of steps, or another form.
  """
  return multistep(process, ts, order, adams_weights, usual=3, form=form, corrector=corrector, lower_final=lower_final)


def adams_weights(nodes: np.ndarray, h: float, form: Form) -> np.ndarray:
  """The weights of the exact exponential Adams method.

  w with sum_j w_j nodes_j^p = h p! phi_{p+1}(+-h), + for eps, - for x0; nodes in units of h, 0 at t, 1 at s.
  """
  moments = [h * factorial(p) * phi(p + 1, h if form == 'eps' else -h) for p in range(len(nodes))]
  return np.linalg.solve(np.vander(nodes, increasing=True).T, np.array(moments))


def multistep(
  process: Process,
  ts: Any,
  order: int | None,
  weights: Weights,
  *,
  usual: int,
  form: Form,
  corrector: bool,
  lower_final: bool,
) -> Table:
  """Predictor and, if wanted, corrector with these weights; the corrector reuses the evaluation at the predicted point.

  Each row first corrects the node it stands on, then predicts the next. Order min(order, i + 1) at the start; a step
  that touches infinite lam is of first order, in data form, and is not corrected. `usual` is the order of None; the
  rest as `exponential_adams`.
  """
  check_form(form)
  ts, alpha, sigma, lam = on_grid(process, ts)
  n = len(ts) - 1
  order = order_of(order, usual, n)
  if form == 'eps':
    warn_of_leaps('Adams method in noise form', ts, alpha, lam)
  table = TableBuilder('x', *['base'] * corrector)  # base: the corrected point one node back
  m = table.history('m', order + corrector - 1, table.eps if form == 'eps' else table.x0)

  def step(i: int, x: Combo, known: Sequence[Combo], ahead: Sequence[Combo]) -> Combo:
    """From x at node i to node i + 1; known[j] is the prediction at node i - j, ahead[0] the one at node i + 1."""
    p, h = order_at(i, order, lam, lower_final), lam[i + 1] - lam[i]
    ratio, scale = leg(alpha, sigma, i, i + 1, form)
    nodes = np.array([(lam[i - j] - lam[i]) / h for j in range(p)] + [1.0] * len(ahead))
    sources = (*known[:p], *ahead)
    return sum((scale * w * m for w, m in zip(weights(nodes, h, form), sources, strict=True)), ratio * x)

  for i in range(n):
    met = corrector and i > 0 and np.isfinite(lam[i - 1 : i + 1]).all()
    x = step(i - 1, table.base, m[1:], m[:1]) if met else table.x
    if np.isfinite(lam[i : i + 2]).all():
      after = step(i, x, m[:], ())
    else:
      after = to_data(table, alpha, sigma, i, x)
    table.row(ts[i], x=after, **({'base': x} if corrector else {}), **m.shifted())
  return table.done()


def order_at(i: int, order: int, lam: np.ndarray, lower_final: bool) -> int:
  """The order of the step from node i to i + 1: at most the nodes it has and, with `lower_final`, the steps left.

  Lowered until lam is finite over all that the step looks at.
  """
  p = min(order, i + 1, len(lam) - 1 - i) if lower_final else min(order, i + 1)
  while p > 1 and not np.isfinite(lam[i - p + 1 : i + 2]).all():
    p -= 1
  return p


def order_of(order: int | None, usual: int, steps: int) -> int:
  """The order asked for, which needs as many steps; where none is, the usual one or as many as there are steps.

  Raises:
    InputError: it is not a whole number from 1 to the number of steps.
  """
  return min(usual, steps) if order is None else whole('order', order, steps)


def check_form(form: str, field: str = 'form') -> None:
  """Raises InputError for what is no form."""
  if form not in FORMS:
    raise InputError(f'{field}: got {form!r}; allowed: {", ".join(FORMS)}')


def leg(alpha: np.ndarray, sigma: np.ndarray, t: int, s: int, form: Form) -> tuple[float, float]:
  """The factors (R, c) of a step from node t to node s.

  alpha_s / alpha_t and -sigma_s in the form of eps, sigma_s / sigma_t and alpha_s in that of x0.
  """
  return (alpha[s] / alpha[t], -sigma[s]) if form == 'eps' else (sigma[s] / sigma[t], alpha[s])


def to_data(table: TableBuilder, alpha: np.ndarray, sigma: np.ndarray, i: int, x: Combo) -> Combo:
  """DDIM's step from x at node i to node i + 1 in data form, finite for sigma_s = 0 and alpha_t = 0."""
  ratio = sigma[i + 1] / sigma[i]
  return ratio * x + (alpha[i + 1] - alpha[i] * ratio) * table.x0


def whole(name: str, value: Any, most: int) -> int:
  """`value` if it is a whole number from 1 to the steps of the grid, or an InputError."""
  if not (isinstance(value, int | np.integer) and 1 <= value <= most):
    raise InputError(f'{name}: got {value!r}; allowed: a whole number from 1 to the {most} steps of the grid')
  return int(value)


def phi(k: int, z: float) -> float:
  """The exponential integrator's function phi_k at z.

  phi_k(z) = sum_j z^j / (j + k)!: the series near 0, where the recursion cancels; the recursion elsewhere.
  """
  if abs(z) < 0.5:
    return sum(z**j / factorial(j + k) for j in range(20))
  value = np.exp(z)
  for j in range(k):
    value = (value - 1 / factorial(j)) / z
  return float(value)
