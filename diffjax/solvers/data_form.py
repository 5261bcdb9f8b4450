"""The two forms of a table: in eps as the papers write it, or in x0 near pure noise, as float32 wants it."""

import warnings

import numpy as np

from diffjax.noise_levels import at
from diffjax.process import Process
from diffjax.solvers.table import Table

__all__ = ['in_data_form']

TINY, ROUNDING = 1e-9, 1e-14  # relative sizes of what counts as no part along x, and of what float64 leaves of 0
LEAP = 100.0  # alpha_s / alpha_t of a step in noise form from which it is warned of
REACH = 10.0  # so many times the change of x0 between two stages that a step in noise form takes


def in_data_form(table: Table, process: Process) -> Table:
  """Rewrites a table from eps to x0 where noise dominates, so that float32 does not cancel; the samples stay the same.

  The same method with eps = (x - alpha x0) / sigma in rows of alpha < sigma, and registers of x0 alone between them.

  A noise form subtracts nearly equal multiples of x and eps, alpha_s / alpha_t times as large as their difference, and
  multiplies their rounding by as much. Here every register R_j becomes R_j - c_j R_{j-1} (the first of them R - c x),
  with c such that what is left does not see a part x0 = 0, eps = const of the predictions: eps_u - eps_t, say, becomes
  (alpha_u / sigma_u) (x0_t - x0_u), tiny near pure noise. The large numbers cancel on the host, in float64. Nearer to
  the data, where it is x0 that would be subtracted, the rows stay as written.

  On consistent predictions (x = alpha x0 + sigma eps, of any network, guided or thresholded) the samples are those of
  the table; one that returns another pair on purpose wants the table as it was written. Noise and element-wise weights
  are kept; registers have their names but other values.
  """
  weights, evaluated = np.asarray(table.rows.weights, np.float64), np.asarray(table.rows.evaluated)
  q, elements = weights.shape[1], weights.shape[3:]
  alpha, sigma, _ = at(process, table.rows.t)
  far, read = np.append(alpha < sigma, False), _read(weights)
  back = _identity(q, elements)  # registers of the table = back @ registers of the new one
  out = np.zeros_like(weights)
  x0, eps = q, q + 1  # their columns, as in `Rows`
  for i, row in enumerate(weights):
    new = row.copy()
    new[:, :q] = np.einsum('jk...,kl...->jl...', row[:, :q], back)
    if evaluated[i] and far[i]:
      new[:, 0] += row[:, eps] / sigma[i]
      new[:, x0] -= row[:, eps] * (alpha[i] / sigma[i])
      new[:, eps] = 0.0
    along = new[:, 0].copy()
    back, last = _identity(q, elements), 0
    for j in range(1, q):
      if not read[i, j]:  # nobody asks for it: it may keep what it has
        new[j] = 0.0
        new[j, j] = 1.0
      elif far[i + 1] and (np.abs(along[[last, j]]) > TINY * np.abs(along).max(0)).all():
        c = along[j] / along[last]
        out[i, j] = new[j] - c * new[last]
        out[i, j, 0] = 0.0
        back[j] += c * back[last]
        last = j
        continue
      out[i, j] = new[j]
    out[i, 0] = new[0]
  known = out[:, :, : q + 1]
  known[np.abs(known) < ROUNDING * np.abs(known).max(2, keepdims=True)] = 0.0
  return table.replace(rows=table.rows._replace(weights=out))


def _identity(q: int, elements: tuple[int, ...]) -> np.ndarray:
  return np.broadcast_to(np.eye(q).reshape(q, q, *(1,) * len(elements)), (q, q, *elements)).copy()


def _read(weights: np.ndarray) -> np.ndarray:
  """(n, q): whether what row i leaves in register j is read by a later row; x always is."""
  n, q = weights.shape[:2]
  uses = (weights[:, :, :q].reshape(n, q, q, -1) != 0).any(-1)  # [i, j, k]: register j after row i reads k
  read = np.zeros((n, q), bool)
  read[n - 1, 0] = True
  for i in range(n - 1, 0, -1):
    read[i - 1] = uses[i][read[i]].any(0)
    read[i - 1, 0] = True
  return read


def warn_of_leaps(what: str, ts: np.ndarray, alpha: np.ndarray, lam: np.ndarray) -> None:
  """One warning if a step in noise form, both ends of finite lam, raises alpha more than 100-fold."""
  plain = np.isfinite(lam[:-1]) & np.isfinite(lam[1:])
  rise = np.divide(alpha[1:], alpha[:-1], out=np.ones(len(plain)), where=plain)
  i = int(np.argmax(rise))
  if rise[i] > LEAP:
    warnings.warn(
      f'{what}: the step from t = {ts[i]:.4g} to {ts[i + 1]:.4g} raises alpha {rise[i]:.0f}-fold in noise form, and '
      'the rounding of float32 with it; in_data_form(table, process) is the same method without it',
      stacklevel=4,
    )


def warn_of_reach(what: str, ts: np.ndarray, reach: np.ndarray) -> None:
  """One warning if a step in noise form, of several stages, takes more than 10 times what x0 changes between them."""
  i = int(np.argmax(reach))
  if reach[i] > REACH:
    warnings.warn(
      f'{what}: a step from t = {ts[i]:.4g} takes {reach[i]:.0f} times in noise form what x0 changes between its '
      'stages, and samples may leave the data; not so with more nodes there, nor with dpmpp_2s or dpmpp_3s',
      stacklevel=4,
    )
