"""Momentum: the direction of a step averaged over steps, as a transform of tables and as a family of its own."""

from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import checked, on_grid
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.data_form import warn_of_leaps
from diffjax.solvers.table import Table

__all__ = ['ghvb']

transforms = ('heavy_ball', 'nesterov')


def heavy_ball(table: Table, beta: float = 0.8) -> Table:
  """Polyak's heavy ball on a table: its direction p replaced by a running mean v of directions.

  v = (1 - beta) v + beta p. A row x' = R x + c p, p the normalised combination of predictions, becomes x' = R x + c v;
  v starts as the first p. Rows without a weight on x (a first step from alpha = 0, a last one to sigma = 0) stay as
  they are. beta = 1 is the table itself; below, stability widens and the order falls to one.

  arXiv:2307.11118

  Raises:
    InputError: beta is outside (0, 1], or the table has other rows than steps from x: stages, correctors or noise.
  """
  return _with_momentum(table, beta, nesterov=False)


def nesterov(table: Table, beta: float = 0.8) -> Table:
  """Nesterov's form of `heavy_ball`, which looks ahead by the direction just updated.

  x' = R x + c [(1 - beta) v + beta p] with the v just updated.

  arXiv:2307.11118

  Raises:
    InputError: as `heavy_ball`.
  """
  return _with_momentum(table, beta, nesterov=True)


def _with_momentum(table: Table, beta: float, nesterov: bool) -> Table:
  if not 0 < beta <= 1:
    raise InputError(f'beta: got {beta}; allowed: a number above 0, up to 1 (no momentum)')
  weights = np.asarray(table.rows.weights, np.float64)
  n, q = weights.shape[:2]
  steps = weights[:, 0, 0] != 0
  plain = not (table.stochastic or table.skips or weights.ndim != 3)
  past = weights[:, 1:]  # registers that hold averages of predictions: then p can be normalised
  averages = plain and not past[..., 0].any() and np.allclose(past.sum(2), 1)
  if not averages or not steps[1 : n - 1].all() or not steps.any():
    raise InputError(f'table: got registers {", ".join(table.registers)}; allowed: a deterministic multistep method '
                     'in which every row steps from x')  # fmt: skip
  keep = np.concatenate([np.arange(q), q + 1 + np.arange(4)])
  out = np.zeros((n, q + 1, q + 5))
  out[:, :q, keep] = weights
  out[:, q, q] = 1.0
  first = int(np.argmax(steps))
  for i in np.flatnonzero(steps):
    ratio, rest = out[i, 0, 0], out[i, 0].copy()
    rest[0] = 0
    gain = rest.sum()
    before, now = (0.0, 1.0) if i == first else (1 - beta, beta)
    v = now / gain * rest
    v[q] += before
    move = v if not nesterov else (1 - now) * v + now / gain * rest
    out[i, q] = v
    out[i, 0] = gain * move
    out[i, 0, 0] += ratio
  return table.replace(rows=table.rows._replace(weights=out), registers=(*table.registers, 'v'))


def ghvb(process: Process, ts: Any, order: float | None = None) -> Table:
  """GHVB, the generalised heavy ball: transfer by a combination of the last k averages v of eps.

  v = (1 - b) v + b eps, x_s = (alpha_s / alpha_t) x_t + alpha_s (rho_s - rho_t) sum_j c_j(b) v_j / b. Order k - 1 + b:
  k = floor + 1 and b the fraction, between Adams-Bashforth of orders k - 1 and k in accuracy and in stability; a whole
  order k has b = 1 and is `ipndm`. Fewer v at the start. None is order 2.5, or as many as there are steps.

  arXiv:2307.11118

  Raises:
    InputError: order is outside (0, 5], or needs more v than there are steps.
  """
  n = len(checked(process, ts)) - 1
  order = min(2.5, n) if order is None else order
  if not 0 < order <= 5:
    raise InputError(f'order: got {order!r}; allowed: a number above 0, up to 5')
  k = int(np.ceil(order))
  b = order - k + 1
  if k > n:
    raise InputError(f'order: got {order!r}; allowed: at most the {n} steps of the grid')
  ts, alpha, sigma, lam = on_grid(process, ts)
  warn_of_leaps('ghvb', ts, alpha, lam)
  table, depth = TableBuilder('x'), max(k, 2) - 1
  for i in range(n):
    v = table.history('v', depth, table.eps)
    if i:
      v = table.history('v', depth, (1 - b) * v[1] + b * table.eps)
    order_now = min(k, i + 1)
    after = alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps
    if np.isfinite(lam[i : i + 2]).all():
      ratio = alpha[i + 1] / alpha[i]
      gain = sigma[i + 1] - ratio * sigma[i]
      after = ratio * table.x
      for c, part in zip(_ghvb_weights(order_now, b), v[:order_now], strict=True):
        after = after + gain * c / b * part
    table.row(ts[i], x=after, **v.shifted())
  return table.done()


def _ghvb_weights(k: int, b: float) -> np.ndarray:
  """c_j(b), the published numbers; for b = 1 those of Adams-Bashforth."""
  rows = (
    np.array([b]),
    np.array([2 + b, -(2 - b)]) / 2,
    np.array([18 + 5 * b, -(24 - 8 * b), 6 - b]) / 12,
    np.array([46 + 9 * b, -(78 - 19 * b), 42 - 5 * b, -(10 - b)]) / 24,
    np.array([1650 + 251 * b, -(3420 - 646 * b), 2880 - 264 * b, -(1380 - 106 * b), 270 - 19 * b]) / 720,
  )
  return rows[k - 1]
