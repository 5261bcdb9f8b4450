"""Self-recurrence: every step of a solver taken several times, with new noise between."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.table import Table
from diffjax.solvers.transforms import behind, joined

__all__ = ['recurrent']


def recurrent(build: Callable[..., Table], process: Process, ts: Any, *, repeats: int = 2, **options: Any) -> Table:
  """A solver that takes every step `repeats` times: after each but the last it goes back to where the step began.

  The way back from s to t is noise alone, a row that is not evaluated, `solvers.renoise`:

      x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t sigma_s / alpha_s)^2) z

  Guidance then acts `repeats` times at a level, and what it broke is repaired at the same level. The solver is built
  anew for each step, so a method that looks back is its first step. `repeats` times the evaluations.
  arXiv:2302.07121, arXiv:2201.09865

  Args:
    build: (process, ts, **options) -> Table, for grids of two times.
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    repeats: how often each step is taken; 1 leaves single steps.
    **options: of the builder.

  Raises:
    InputError: a number of repeats that is none, or what the builder refuses.
  """
  if not (isinstance(repeats, int | np.integer) and repeats >= 1):
    raise InputError(f'repeats: got {repeats!r}; allowed: a whole number of at least 1')
  ts, alpha, sigma, _ = on_grid(process, ts)
  parts = []
  for i in range(len(ts) - 1):
    step = build(process, ts[i : i + 2], **options)
    ratio = alpha[i] / alpha[i + 1]
    std = np.sqrt((sigma[i] - ratio * sigma[i + 1]) * (sigma[i] + ratio * sigma[i + 1]))
    parts += [step, *[behind(step, ts[i + 1], ratio, std)] * (repeats - 1)]
  return joined(parts)
