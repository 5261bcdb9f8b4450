"""The unified framework: a solver as one choice a step, and every choice of them as a table.

Step i goes to node i + 1 by the exact solution in lam with a polynomial through some of the predictions in place of x0
or eps (`solvers.tables.adams`); a `Choice` says which. Orders fall at the start, where predictions are missing, and
a step that touches infinite lam is DDIM in data form.

arXiv:2312.07243
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.data_form import in_data_form
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import FORMS, Form, adams_weights, leg, phi

__all__ = ['BASELINES', 'Choice', 'usf']

SCALINGS = ('exact', 'b1', 'b2')


class Choice(NamedTuple):
  """How one step is made.

  Attributes:
    order: predictions that the polynomial goes through, 1 to 4.
    form: what is interpolated: 'x0', the data form, or 'eps', the noise form.
    corrector: once the node it leads to is evaluated, the step is made again with that prediction too.
    scaling: the weight of a single difference: the exact one, or half of h (b1) or of |1 - e^{-+h}| (b2), as in UniPC.
    low: each derivative by the fewest nodes that give it, instead of all of them.
    back: the step starts from the node so many before the last: stages of a singlestep method.
  """

  order: int = 1
  form: Form = 'x0'
  corrector: bool = False
  scaling: str = 'exact'
  low: bool = False
  back: int = 0


def usf(process: Process, ts: Any, choices: Sequence[Choice]) -> Table:
  """The table of these choices, one a step of the grid; as many evaluations as steps.

  From node a = i - back, with h = lam_{i+1} - lam_a and R, c of `adams.leg`,

      x_{i+1} = R x_a + c sum_j w_j m_j

  over m_a and the newest other predictions, `order` in all, w exact for polynomials of that order in lam.

  Raises:
    InputError: another number of choices than steps, or a choice that does not exist.
  """
  ts, alpha, sigma, lam = on_grid(process, ts)
  n = len(ts) - 1
  _check(choices, n)
  plan = [_nodes(i, choices[i], lam) for i in range(n)]  # of each step: the nodes it uses, the one it starts from first
  # a corrector looks at the plan of the step before from one node on
  reach = [max(i - min(nodes) + choices[i].corrector for i, nodes in enumerate(plan) if choices[i].form == form)
           if form in {c.form for c in choices} else 0 for form in FORMS]  # fmt: skip
  anchors = max(i - nodes[0] + choices[i].corrector for i, nodes in enumerate(plan))
  table = TableBuilder('x')
  before = table.history('x', anchors, table.x)
  lags = {'x0': table.history('m', reach[0], table.x0), 'eps': table.history('e', reach[1], table.eps)}

  def step(i: int, at: int, x: Combo, ahead: bool) -> Combo:
    """Step i written in the row of node `at`, i or i + 1, where x is the point it starts from."""
    c, (start, *_) = choices[i], plan[i]
    h = lam[i + 1] - lam[start]
    used = [*plan[i], *([i + 1] if ahead else [])]
    ratio, scale = leg(alpha, sigma, start, i + 1, c.form)
    weights = _weights((lam[used] - lam[start]) / h, h, c)
    return sum((scale * w * lags[c.form][at - j] for w, j in zip(weights, used, strict=True)), ratio * x)

  for i in range(n):
    again = i > 0 and choices[i - 1].corrector and np.isfinite(lam[i - 1 : i + 1]).all()
    x = step(i - 1, i, before[i - plan[i - 1][0]], True) if again else table.x
    here = table.history('x', anchors, x)
    if np.isfinite(lam[i : i + 2]).all():
      after = step(i, i, here[i - plan[i][0]], False)
    else:
      ratio = sigma[i + 1] / sigma[i]
      after = ratio * x + (alpha[i + 1] - alpha[i] * ratio) * table.x0
    table.row(ts[i], x=after, **here.shifted(), **lags['x0'].shifted(), **lags['eps'].shifted())
  table = table.done()
  return in_data_form(table, process) if any(c.form == 'eps' for c in choices) else table


def _nodes(i: int, c: Choice, lam: np.ndarray) -> list[int]:
  """The node that step i starts from, then the newest others that it uses; all of finite lam where it can be."""
  start = i - min(c.back, i)
  if not np.isfinite(lam[start : i + 1]).all():
    start = i
  others = [j for j in range(i, -1, -1) if j != start and np.isfinite(lam[j])]
  return [start, *others[: c.order - 1]] if np.isfinite(lam[[i, i + 1]]).all() else [i]


def _weights(nodes: np.ndarray, h: float, c: Choice) -> np.ndarray:
  """The weights of the predictions at these nodes, in units of h with the start at 0."""
  if len(nodes) == 2 and c.scaling != 'exact':
    whole = float(np.expm1(h) if c.form == 'eps' else -np.expm1(-h))
    weight = (h if c.scaling == 'b1' else whole) / 2 / nodes[1]
    return np.array([whole - weight, weight])
  if not c.low or len(nodes) < 3:
    return adams_weights(nodes, h, c.form)
  sign, total = 1 if c.form == 'eps' else -1, np.zeros(len(nodes))
  for k in range(len(nodes)):  # h phi_{k+1} k! m[nodes_0 .. nodes_k], a divided difference
    for j in range(k + 1):
      total[j] += h * phi(k + 1, sign * h) * factorials[k] / np.prod(nodes[j] - np.delete(nodes[: k + 1], j))
  return total


factorials = (1, 1, 2, 6, 24)


def _check(choices: Sequence[Choice], n: int) -> None:
  if len(choices) != n:
    raise InputError(f'choices: got {len(choices)} for {n} steps; allowed: one a step')
  for i, c in enumerate(choices):
    for field, value, allowed in (('order', c.order, (1, 2, 3, 4)), ('form', c.form, FORMS),
                                  ('scaling', c.scaling, SCALINGS), ('back', c.back, (0, 1, 2, 3))):  # fmt: skip
      if value not in allowed:
        raise InputError(f'choices[{i}].{field}: got {value!r}; allowed: {", ".join(map(str, allowed))}')


def _falling(order: int, n: int, **options: Any) -> list[Choice]:
  return [Choice(min(order, n - i), **options) for i in range(n)]


BASELINES = {
  'ddim': lambda n: [Choice()] * n,
  'dpmpp_2m': lambda n: _falling(2, n, scaling='b2'),
  'dpmpp_3m': lambda n: _falling(3, n),
  'unipc': lambda n: _falling(2, n, scaling='b2', corrector=True),
  'unipc_3': lambda n: _falling(3, n, scaling='b2', corrector=True),
  'adams_noise': lambda n: [Choice(3, form='eps')] * n,
}
"""Published methods as choices for n steps."""
