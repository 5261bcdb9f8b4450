"""Tables made of other tables: noise before steps, a last evaluation, combined predictions, steps through the pair."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at, on_grid, times_of
from diffjax.process import Process
from diffjax.solvers.table import Rows, Table

__all__ = ['churn', 'denoise_to_zero', 'dualfast', 'pair_form']


def denoise_to_zero(table: Table, process: Process, t: float | None = None) -> Table:
  """The table with one more evaluation, at the time t where it ends, that returns x0. One evaluation more.

  Args:
    table: the table to start from.
    process: the forward process.
    t: the last time of the table's grid; the process's t_min by default.

  Raises:
    InputError: t is above a time of the table, or sigma(t) = 0.
  """
  times = np.asarray(table.rows.t, np.float64)
  t = float(process.t_min) if t is None else float(t)
  if not t <= times.min() or at(process, [t])[1][0] == 0:
    raise InputError(f't: got {t:.6g}; allowed: the last time of the grid, where sigma > 0, at most {times.min():.6g}')
  weights = np.asarray(table.rows.weights, np.float64)
  q = weights.shape[1]
  evaluated, stream = np.asarray(table.rows.evaluated), np.asarray(table.rows.stream)
  rows = Rows(
    np.append(times, t),
    np.concatenate([weights, np.zeros((1, *weights.shape[1:]))]),
    np.append(evaluated, True),
    np.append(stream, stream.max() + 1).astype(np.int32),
  )
  rows.of_x0[-1, 0] = 1.0
  for j in range(1, q):
    rows.weights[-1, j, j] = 1.0
  return table.replace(rows=rows)


def churn(
  build: Callable[..., Table],
  process: Process,
  ts: Any,
  *,
  s_churn: float = 40.0,
  s_min: float = 0.0,
  s_max: float = np.inf,
  s_noise: float = 1.0,
  **options: Any,
) -> Table:
  """A solver with noise before its steps, which then start from the raised level.

  Before the step from t, sigma / alpha is raised by the factor 1 + min(s_churn / n, sqrt 2 - 1), at most to its value
  at t_max: a row that is not evaluated, x' = (alpha' / alpha) x + alpha' s_noise sqrt(rho'^2 - rho^2) z. The
  coefficients of a step depend on where it starts, so this takes the builder, not its table: the solver is built anew
  from each raised level to the next, with its registers at 0, and a method that looks back starts over there.

  arXiv:2206.00364 Alg. 2

  Args:
    build: (process, ts, **options) -> Table, for grids of as few as two times if every step is churned.
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    s_churn: how much noise a run puts in, over its n steps.
    s_min: the sigma / alpha at which there is churn; published .05 and 50 for ImageNet-64.
    s_max: see `s_min`.
    s_noise: the standard deviation of the noise; there 1.003.
    **options: of the builder.

  Raises:
    InputError: s_churn is negative, or what the builder refuses.
  """
  ts, alpha, _, lam = on_grid(process, ts)
  n = len(ts) - 1
  rho, up = churned_levels(process, lam, s_churn, s_min, s_max)
  churned = up > rho
  starts = [i for i in range(n) if i == 0 or churned[i]]
  parts = []
  for first, last in zip(starts, [*starts[1:], n], strict=True):
    nodes = ts[first : last + 1].copy()
    if churned[first]:
      nodes[0] = times_of(process, [-np.log(up[first])])[0]
    part = build(process, nodes, **options)
    if churned[first]:
      raised = at(process, nodes[:1])[0][0]
      std = raised * s_noise * np.sqrt((up[first] - rho[first]) * (up[first] + rho[first]))
      part = behind(part, ts[first], raised / alpha[first], std)
    parts.append(part)
  return joined(parts)


def churned_levels(
  process: Process, lam: np.ndarray, s_churn: float, s_min: float, s_max: float
) -> tuple[np.ndarray, np.ndarray]:
  """The levels sigma / alpha (n,) of the steps' starts, and those they are raised to by EDM's churn.

  arXiv:2206.00364 Alg. 2

  Raises:
    InputError: s_churn is negative.
  """
  if not s_churn >= 0:
    raise InputError(f's_churn: got {s_churn}; allowed: a number of at least 0')
  rho = np.exp(-lam[:-1])
  most = np.exp(-at(process, [float(process.t_max)])[2][0])
  up = np.minimum(rho * (1 + min(s_churn / len(rho), np.sqrt(2) - 1)), most)
  return rho, np.where((up > rho) & (s_min <= rho) & (rho <= s_max), up, rho)


def behind(table: Table, t: float, keep: float, std: float) -> Table:
  """The table behind a row that is not evaluated: x' = keep x + std z, the other registers 0."""
  old = table.rows
  first = np.zeros((1, *old.weights.shape[1:]))
  first[0, 0, 0] = keep
  rows = Rows(np.append(t, old.t), np.concatenate([first, old.weights]), np.append(False, old.evaluated), old.stream)
  rows.of_z[0, 0] = std
  return table.replace(rows=rows, stochastic=True, skips=True)


def joined(tables: list[Table]) -> Table:
  """One table after another, the noise of every row its own."""
  t, weights, evaluated = (np.concatenate([getattr(table.rows, name) for table in tables]) for name in Rows._fields[:3])
  return tables[0].replace(
    rows=Rows(t, weights, evaluated, np.arange(len(t), dtype=np.int32)),
    stochastic=any(table.stochastic for table in tables),
    skips=any(table.skips for table in tables),
  )


def dualfast(table: Table, process: Process, amount: float, decay: str = 'linear', tau: str = 'first') -> Table:
  """DualFast: a solver whose noise predictions lean on an earlier, noisier one.

  eps' = (1 + c) eps - c eps_tau, x0' = x0 - (sigma / alpha) c (eps - eps_tau), the consistent pair; every register
  takes the new one. The earlier prediction is kept in a register more; no evaluation more. amount = 0 is the table
  itself. After the abstract alone: which tau and c(t) the paper has is not verified, and the best amount depends on the
  network's error.

  Args:
    table: the table to start from.
    process: the forward process.
    amount: c at the first evaluation, where it does nothing as eps is eps_tau; some number of -.5 to .5.
    decay: 'linear', to 0 at the last evaluation, or 'constant'.
    tau: the earlier prediction: the 'first' or the 'previous' one.

  Raises:
    InputError: a name that is not there, or alpha = 0 after the first evaluation.
  """
  for field, value, allowed in (('decay', decay, ('linear', 'constant')), ('tau', tau, ('first', 'previous'))):
    if value not in allowed:
      raise InputError(f'{field}: got {value!r}; allowed: {", ".join(allowed)}')
  weights, evaluated = np.asarray(table.rows.weights, np.float64), np.asarray(table.rows.evaluated)
  n, q = weights.shape[:2]
  alpha, sigma, _ = at(process, table.rows.t)
  place = np.cumsum(evaluated) - 1
  c = np.where(evaluated & (place > 0), amount, 0.0)
  if decay == 'linear':
    c = c * (1 - place / max(place[-1], 1))
  if ((c != 0) & (alpha == 0)).any():
    raise InputError('table: got an evaluation at alpha = 0 after the first; allowed: alpha > 0 there')
  ratio = np.divide(sigma, alpha, out=np.zeros(n), where=c != 0)
  keep = np.concatenate([np.arange(q), q + 1 + np.arange(4)])
  out = np.zeros((n, q + 1, q + 5, *weights.shape[3:]))
  out[:, :q, keep] = weights
  over = (slice(None), *(None,) * (weights.ndim - 2))  # a number a row against (n, q[, ...])
  old, rows = table.rows._replace(weights=weights), table.rows._replace(weights=out)
  lean = c[over] * (old.of_eps - old.of_x0 * ratio[over])
  rows.of_eps[:, :q] += lean
  out[:, :q, q] -= lean  # q: the new register
  pin = evaluated & (place == 0) if tau == 'first' else evaluated
  rows.of_eps[pin, q] = 1.0
  out[~pin, q, q] = 1.0
  return table.replace(rows=rows, registers=(*table.registers, 'pinned'))


def pair_form(table: Table, process: Process) -> Table:
  """Rewrites a table so that all it makes of x goes through the predicted pair.

  x = alpha x0 + sigma eps is put in for x at every evaluation. A first-order step becomes x_s = alpha_s x0 + sigma_s
  eps. On consistent predictions nothing changes; a denoiser that returns another pair on purpose (`guidance.cfgpp`, or
  x0 clipped and eps kept) is written as its authors write it. Values kept in registers, and rows that are not
  evaluated, stay.
  """
  weights, evaluated = np.array(table.rows.weights, np.float64), np.asarray(table.rows.evaluated)
  rows = table.rows._replace(weights=weights)
  alpha, sigma, _ = at(process, np.asarray(table.rows.t)[evaluated])
  over = (slice(None), *(None,) * (weights.ndim - 2))
  share = weights[evaluated, :, 0]
  rows.of_x0[evaluated] += share * alpha[over]
  rows.of_eps[evaluated] += share * sigma[over]
  weights[evaluated, :, 0] = 0.0
  return table.replace(rows=rows)
