"""Every deterministic method on n evaluations as numbers that a gradient can move.

After n evaluations any table has made x of x_T and the predictions, so with levels (alpha_i, sigma_i) at the nodes

    x_{i+1} = (1 + scale_i) {r_i x_i + (alpha_{i+1} - alpha_i r_i) [x0_i + sum_l look_il (x0_i - x0_{i-l})]},
    r_i = sigma_{i+1} / sigma_i,

spans all that a linear method can do, and at scale = 0 a step is exact where the predictions agree, whatever `look`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import noise_levels
from diffjax.errors import InputError
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers import Rows, Table

__all__ = ['Free', 'free']

LEAST = 0.01  # of the range of lam that is left behind the last node of a table that begins on its end
STRIDE = 0.1  # of scale and told: their natural size beside that of look and spacing


class Free(PyTree):
  """A table with n evaluations, by its free numbers.

  Attributes:
    spacing: (n,) logits of the gaps in lam from the first node to the others and to the end of the range, so that
      times always fall and stay above t_min.
    look: (n, n - 1) weights of the differences to earlier predictions, entry l - 1 for the one l rows back.
    scale: (n,) factors 1 + STRIDE scale of each step's result; 0 keeps the line alpha x0 + sigma eps.
    told: (n,) what the network is told of the time, times exp(STRIDE told); 0 tells it the node's own, as does the
      first, which does not move.
    first: the time of the first node. last: (alpha, sigma) where the table ends. span: the range of lam.
  """

  process: Process
  spacing: Array
  look: Array
  scale: Array
  told: Array
  first: Array
  last: Array
  span: Array

  def nodes(self) -> Array:
    """The n times of the points, falling."""
    share = jnp.cumsum(jax.nn.softmax(self.spacing))[:-1]
    low, high = self.span
    return jnp.concatenate([self.first[None], self.process.lam_inverse(low + (high - low) * share)])

  def table(self) -> Table:
    """The rows, in the dtype of the numbers, with gradients to all of them."""
    n, ts = len(self.spacing), self.nodes()
    alpha, sigma = self.process.schedule(ts)
    alpha, sigma = jnp.append(alpha, self.last[0]), jnp.append(sigma, self.last[1])
    ratio = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * ratio
    look = jnp.tril(self.look, -1)  # row i has i earlier predictions
    row = jnp.concatenate(
      [ratio[:, None], -gain[:, None] * look, (gain * (1 + look.sum(1)))[:, None], jnp.zeros((n, 3))], 1
    )
    shift = np.zeros((n, n - 1, n + 4))  # m1 <- x0, m2 <- m1, ...
    for j in range(n - 1):
      shift[:, j, n if j == 0 else j] = 1
    weights = jnp.concatenate([((1 + STRIDE * self.scale)[:, None] * row)[:, None], jnp.asarray(shift, row.dtype)], 1)
    told = jnp.clip(ts * jnp.exp(STRIDE * self.told), self.process.t_min, self.process.t_max)
    told = told.at[0].set(ts[0])  # where x begins, which whoever draws x reads from the table
    rows = Rows(told, weights, jnp.ones(n, bool), jnp.arange(n, dtype=jnp.int32))
    return Table(rows, ('x', *(f'm{j}' for j in range(1, n))))

  def final(self) -> Table:
    """The table in NumPy float64, for `sample` and for files."""
    with jax.enable_x64(True):
      exact = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), self)
      table = exact.table()
      return jax.tree.map(np.asarray, table)


def free(process: Process, table: Table) -> Free:
  """The free numbers that give this table: any deterministic one whose evaluations are at falling times.

  Samples agree to rounding wherever the predictions are consistent pairs. A table whose last evaluation is at t_min
  has that moved off it by a hundredth of the range in lam, where there is room to move.

  Raises:
    InputError: it draws noise, is element-wise, evaluates twice at one time, or leaves the line alpha x0 + sigma eps,
      as a table whose scale or told moved does.
  """
  weights, evaluated = np.asarray(table.rows.weights, np.float64), np.asarray(table.rows.evaluated)
  ts = np.asarray(table.rows.t, np.float64)[evaluated]
  if table.stochastic or weights.ndim != 3 or not (np.diff(ts) < 0).all():
    raise InputError('table: got one that draws noise, is element-wise or does not evaluate at falling times; allowed: '
                     'the others')  # fmt: skip
  alpha, sigma, lam = noise_levels.at(process, ts)
  points, n = _points(table.rows, alpha, sigma), len(ts)
  last = np.array([points[-1, 0] * alpha[0] + points[-1, 1:].sum(), points[-1, 0] * sigma[0]])
  levels = np.append(alpha, last[0]), np.append(sigma, last[1])
  look = np.zeros((n, n - 1))
  for i in range(n):
    ratio = levels[1][i + 1] / sigma[i]
    step = (points[i + 1] - ratio * points[i]) / (levels[0][i + 1] - alpha[i] * ratio)
    if abs(step[0]) > 1e-6 or abs(step[1:].sum() - 1) > 1e-6:
      raise InputError(f'table: row {i} leaves the line alpha x0 + sigma eps; allowed: rows that keep to it')
    look[i, :i] = -step[1 : i + 1][::-1]
  low = lam[0] if np.isfinite(lam[0]) else noise_levels.at(process, [ts[0] * (1 - 1e-3)])[2][0]
  with np.errstate(divide='ignore'):  # an end without noise has sigma 0 to a rounding, of either sign
    high = min(noise_levels.at(process, [float(process.t_min)])[2][0], np.log(last[0]) - np.log(max(last[1], 0.0)))
  gaps = np.diff(np.concatenate([[low], lam[1:], [high]])) / (high - low)
  gaps = np.maximum(gaps, LEAST * (np.arange(n) == n - 1))
  if (gaps <= 0).any():
    raise InputError(f'table: got an evaluation at t = {ts[-1]:.4g}; allowed: down to t_min = {float(process.t_min):g}')
  numbers = (np.log(gaps / gaps.sum()), look, np.zeros(n), np.zeros(n), ts[0], last, np.array([low, high]))
  return Free(process, *(jnp.asarray(v, float) for v in numbers))


def _points(rows: Rows, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
  """(n + 1, 1 + n): the points evaluated and the end, as coefficients of x_T and of the n predictions of x0."""
  n, q = int(np.sum(rows.evaluated)), rows.weights.shape[1]
  state: Any = np.zeros((q, 1 + n))
  state[0, 0] = 1
  points, i = [], 0
  columns = (np.asarray(part, np.float64) for part in (rows.weights[:, :, :q], rows.of_x0, rows.of_eps))
  for of_registers, of_x0, of_eps, evaluated in zip(*columns, rows.evaluated, strict=True):
    clean, eps = np.zeros(1 + n), np.zeros(1 + n)
    if evaluated:
      points.append(state[0])
      clean[1 + i] = 1
      eps = (state[0] - alpha[i] * clean) / sigma[i]
      i += 1
    state = of_registers @ state + np.outer(of_x0, clean) + np.outer(of_eps, eps)
  return np.array([*points, state[0]])
