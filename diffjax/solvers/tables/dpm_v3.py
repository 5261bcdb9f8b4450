"""DPM-Solver-v3: an exponential multistep method whose linear part is fitted to the network, element by element.

With y = x / alpha the probability-flow ODE in lam is y' = -(l y + f), f = (sigma eps - l x) / alpha. Along it f' is
near s f + b; with S = int s from the start of a step, g = e^{-S} f - int e^{-S} b is nearly constant, and replaced by
a polynomial in lam through the last nodes. l, s and b are linear between the knots of their file, and all integrals are
taken by Gauss's rule of eight points between knots, in float64: times need not be knots.
"""

from collections.abc import Sequence
from math import factorial
from typing import Any, NamedTuple

import numpy as np

from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import Combo, TableBuilder
from diffjax.solvers.table import Table
from diffjax.solvers.tables.adams import order_at, order_of, to_data
from diffjax.statistics.types import ModelStatistics, given

__all__ = ['dpm_v3']

POINTS, WEIGHTS = ((p + s) / 2 for p, s in zip(np.polynomial.legendre.leggauss(8), (1, 0), strict=True))  # on [0, 1]
_POWERS = np.arange(1, 9)
INNER = POINTS[:, None] ** _POWERS / _POWERS @ np.linalg.inv(np.vander(POINTS, increasing=True))  # from 0 to a point


def dpm_v3(
  process: Process,
  ts: Any,
  statistics: ModelStatistics,
  order: int | None = None,
  *,
  corrector: bool = True,
  pseudo: bool = False,
  lower_final: bool = True,
) -> Table:
  """DPM-Solver-v3, any order, with coefficients for every element of x.

      x_s = (alpha_s / alpha_t) e^{-L_s} x_t - alpha_s e^{-L_s} int_t^s e^{L + S} [g + int e^{-S} b] dlam,

  L = int l and S = int s from t. Each evaluation enters as f = (1 - l) e^{-lam} eps - l x0. A step that touches
  infinite lam is the first-order step in data form. With l = 1, s = b = 0 it is `exponential_adams`, with l = 0,
  s = -1, b = 0 its noise form.

  arXiv:2310.13268 Alg. 1

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    statistics: of this process and network, `diffjax.statistics.linear_terms`.
    order: None is 3, or as many as there are steps.
    corrector: redo each step of order two or more with the evaluation at its end in place of the oldest one; f there
      stays. Costs no evaluation; the last step has none.
    pseudo: derivatives by divided differences alone, which the paper prefers at 5 evaluations.
    lower_final: let the order fall to one over the last steps.

  Raises:
    InputError: no statistics or another process's; order is not a whole number from 1 to the number of steps.
  """
  given(process, statistics, ModelStatistics)
  ts, alpha, sigma, lam = on_grid(process, ts)
  n = len(ts) - 1
  order = order_of(order, 3, n)
  terms = _Terms.of(statistics)
  table = TableBuilder('x', *['base'] * corrector)  # base: the corrected point one node back

  def step(i: int, x: Combo, nodes: list[int], known: Sequence[Combo]) -> Combo:
    """From x at node i to node i + 1 through f at these nodes, the first of them i."""
    ratio, weights, constant = terms.step(lam[i], lam[i + 1], lam[nodes], pseudo and max(nodes) == i)
    scale = -alpha[i + 1]
    total = sum((scale * w * f for w, f in zip(weights, known, strict=True)), alpha[i + 1] / alpha[i] * ratio * x)
    return total + scale * constant * table.one

  for i in range(n):
    f = table.history('f', order - 1, _remainder(table, terms, lam[i]))
    x, p = table.x, order_at(i - 1, order, lam, lower_final) if i else 1
    if corrector and p > 1:
      x = step(i - 1, table.base, [i - 1, i, *range(i - 2, i - p, -1)], [f[1], f[0], *f[2:p]])
    if np.isfinite(lam[i : i + 2]).all():
      p = order_at(i, order, lam, lower_final)
      after = step(i, x, list(range(i, i - p, -1)), f[:p])
    else:
      after = to_data(table, alpha, sigma, i, x)
    table.row(ts[i], x=after, **({'base': x} if corrector else {}), **f.shifted())
  return table.done()


def _remainder(table: TableBuilder, terms: '_Terms', lam: float) -> Combo:
  """The part f = (sigma eps - l x) / alpha that is not linear, with x = alpha x0 + sigma eps put in."""
  if not np.isfinite(lam):
    return 0.0 * table.x0  # no step looks back at it
  l = terms.shaped(terms.at(terms.l, lam))  # noqa: E741
  return (1 - l) * np.exp(-lam) * table.eps - l * table.x0


class _Terms(NamedTuple):
  """l, s, b (K, D) linear in lam between the knots (K,), constant beyond; integrals of l and s from the first knot."""

  lam: np.ndarray
  l: np.ndarray  # noqa: E741
  s: np.ndarray
  b: np.ndarray
  shape: tuple[int, ...]

  @classmethod
  def of(cls, statistics: ModelStatistics) -> '_Terms':
    lam = np.asarray(statistics.lam, np.float64)
    far = np.concatenate([[lam[0] - 1e3], lam, [lam[-1] + 1e3]])
    flat = (np.asarray(v, np.float64).reshape(len(lam), -1) for v in (statistics.l, statistics.s, statistics.b))
    return cls(far, *(np.concatenate([v[:1], v, v[-1:]]) for v in flat), shape=statistics.shape)

  def shaped(self, value: np.ndarray) -> np.ndarray:
    return value.reshape(self.shape)

  def at(self, values: np.ndarray, lam: Any) -> np.ndarray:
    """The interpolant, (*lam, D)."""
    k, u = self._place(lam)
    return values[k] + (values[k + 1] - values[k]) * (u / np.diff(self.lam)[k])[..., None]

  def integral(self, values: np.ndarray, start: float, lam: Any) -> np.ndarray:
    """Of the interpolant from `start` to lam, exactly, (*lam, D)."""
    width = np.diff(self.lam)[:, None]
    whole = np.concatenate([np.zeros_like(values[:1]), np.cumsum((values[1:] + values[:-1]) / 2 * width, 0)])

    def reach(lam: Any) -> np.ndarray:
      k, u = self._place(lam)
      u, base = u[..., None], whole[k] - whole[self._place(start)[0]]  # differences first: the ends are far off
      return base + u * values[k] + u**2 / 2 * (values[k + 1] - values[k]) / width[k]

    return reach(lam) - reach(start)

  def _place(self, lam: Any) -> tuple[np.ndarray, np.ndarray]:
    k = np.clip(np.searchsorted(self.lam, lam, 'right') - 1, 0, len(self.lam) - 2)
    return k, np.asarray(lam) - self.lam[k]

  def quadrature(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (pieces, 8) between the knots from start to end, either direction, and the widths of the pieces."""
    low, high = min(start, end), max(start, end)
    inside = self.lam[(self.lam > low) & (self.lam < high)]
    edges = np.concatenate([[start], inside if end > start else inside[::-1], [end]])
    width = np.diff(edges)
    return edges[:-1, None] + width[:, None] * POINTS, width

  def bias(self, start: float, points: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V(r) = int_start^r e^{-S} b at these points (pieces, 8, D) and at the end (D,), S from start."""
    rate = np.exp(-self.integral(self.s, start, points)) * self.at(self.b, points)
    pieces = np.einsum('p,j,pjd->pd', width, WEIGHTS, rate)
    before = np.cumsum(pieces, 0) - pieces
    return before[:, None] + np.einsum('p,ij,pjd->pid', width, INNER, rate), pieces.sum(0)

  def step(self, t: float, s: float, nodes: np.ndarray, pseudo: bool) -> tuple[np.ndarray, list, np.ndarray]:
    """R, w_j and c with  y_s = R y_t - (sum_j w_j f_j + c)  for f through its values at these nodes, the first t."""
    points, width = self.quadrature(t, s)
    grow = np.exp(self.integral(self.l, t, points) + self.integral(self.s, t, points)) * (
      width[:, None, None] * WEIGHTS[:, None]
    )
    powers = [(points - t) ** p / factorial(p) for p in range(len(nodes))]
    moments = np.stack([np.einsum('pjd,pj->d', grow, power) for power in powers])
    constant = np.sum(grow * self.bias(t, points, width)[0], (0, 1))
    fade = np.exp(-self.integral(self.l, t, s))
    weights = []
    for node, share in zip(nodes, _derivatives(nodes - t, pseudo).T @ moments, strict=True):
      at_node = self.bias(t, *self.quadrature(t, node))[1] if node != t else 0.0
      weights.append(self.shaped(fade * share * np.exp(-self.integral(self.s, t, node))))
      constant = constant - share * at_node
    return self.shaped(fade), weights, self.shaped(fade * constant)


def _derivatives(offsets: np.ndarray, pseudo: bool) -> np.ndarray:
  """(p, j): the p-th derivative at 0 as a combination of values at these offsets, the first of them 0.

  Of the interpolating polynomial; or p! times the divided difference of the first p + 1 values.
  """
  k = len(offsets)
  scale = np.array([factorial(p) for p in range(k)])[:, None]
  if not pseudo:
    return scale * np.linalg.inv(np.vander(offsets, increasing=True))
  gaps = offsets[:, None] - offsets + np.eye(k)
  return scale * np.array([[1 / np.prod(gaps[j, : p + 1]) if j <= p else 0.0 for j in range(k)] for p in range(k)])
