"""Steps of the reverse SDE in lam: DPM-Solver's noise and data forms. The data form of order one is `ddpm`."""

from typing import Any

import numpy as np

from diffjax.process import Process
from diffjax.solvers.grids import checked, on_grid
from diffjax.solvers.table import Table
from diffjax.solvers.tape import Tape

__all__ = ['sde_dpm', 'sde_dpmpp_2m']


def sde_dpm(process: Process, ts: Any) -> Table:
  """SDE-DPM-Solver-1, noise form; the step to sigma = 0 returns x0.   arXiv:2211.01095 app. D

  x_s = (alpha_s / alpha_t) x_t - 2 sigma_s expm1(h) eps + sigma_s sqrt(expm1(2 h)) z, h = lam_s - lam_t. Weak order
  one, and less stable than `ddpm`.

  Raises:
    ValueError: the grid starts where alpha = 0.
  """
  alpha, sigma, _ = on_grid(process, ts)
  ts = checked(process, ts)
  tape = Tape('x')
  for i in range(len(ts) - 1):
    if sigma[i + 1] == 0:
      tape.row(ts[i], x=alpha[i + 1] * tape.x0)
      continue
    with np.errstate(divide='ignore'):  # alpha = 0 is refused below
      ratio = alpha[i + 1] / alpha[i]
    grown = ratio * sigma[i]  # sigma_s e^h
    noise = np.sqrt((grown - sigma[i + 1]) * (grown + sigma[i + 1])) * tape.z
    tape.row(ts[i], x=ratio * tape.x - 2 * (grown - sigma[i + 1]) * tape.eps + noise)
  return tape.done()


def sde_dpmpp_2m(process: Process, ts: Any, exact: bool = False) -> Table:
  """SDE-DPM-Solver++(2M): data form, second order in its drift.   arXiv:2211.01095 app. D

  With D = x0 + (x0 - previous x0) h / (2 h_before), and the first step, and the last one, with D = x0 (`ddpm`):

      x_s = (sigma_s / sigma_t) e^{-h} x_t + alpha_s (1 - e^{-2h}) D + sigma_s sqrt(1 - e^{-2h}) z.

  `exact` weighs the difference by its own integral, 1 - (1 - e^{-2h}) / (2 h), instead of (1 - e^{-2h}) / 2.
  """
  alpha, sigma, lam = on_grid(process, ts)
  ts = checked(process, ts)
  tape = Tape('x', 'm1')  # m1: the previous prediction
  for i in range(len(ts) - 1):
    h = lam[i + 1] - lam[i]
    gone = -np.expm1(-2 * h)
    after = sigma[i + 1] / sigma[i] * np.exp(-h) * tape.x + alpha[i + 1] * gone * tape.x0
    if 0 < i < len(ts) - 2 and np.isfinite(lam[i - 1 : i + 2]).all():
      slope = (tape.x0 - tape.m1) * (h / (lam[i] - lam[i - 1]))
      after = after + alpha[i + 1] * (1 - gone / (2 * h) if exact else gone / 2) * slope
    tape.row(ts[i], x=after + sigma[i + 1] * np.sqrt(gone) * tape.z, m1=tape.x0)
  return tape.done()
