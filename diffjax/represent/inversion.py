"""DDIM inversion: a deterministic solver run backwards on its own grid, from data to the noise that draws them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Cond, Data
from diffjax.errors import InputError
from diffjax.noise_levels import checked
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.solvers import Table, ddim, sample

__all__ = ['inversion', 'reconstructed']


def inversion(process: Process, ts: Any, build: Callable = ddim, **options: Any) -> Table:
  """The table solver `build` of the same grid in the other direction: it takes data at the last time to the first.

      x_t = alpha_t x0(x_s, s) + sigma_t eps(x_s, s)        for DDIM, s < t

  It is `build` on the process whose time is t_max - t, so that every deterministic table has one, of its own order:
  `sample(denoise, inversion(process, ts), x)` is the noise of x, and `sample(denoise, build(process, ts), noise)` is x
  again up to the solvers' errors.

  arXiv:2010.02502 sec. 5.4

  Args:
    process: the forward process.
    ts: the grid as for sampling, strictly decreasing, with a last time above 0, where x tells no noise.
    build: a builder of tables (process, ts, **options).
    options: of the builder.

  Raises:
    InputError: the grid ends at 0, the solver draws noise or is no table, or as `build`.
  """
  ts = checked(process, ts)
  if ts[-1] <= 0:
    raise InputError('ts: got a grid that ends at 0; allowed: one that ends above, such as with to_zero=False')
  forward = build(process, ts, **options)
  if not isinstance(forward, Table) or forward.stochastic:
    raise InputError(f'build: got {getattr(build, "__name__", build)}; allowed: a builder of deterministic tables')
  last = float(process.t_max)
  turned = Process(
    Partial(_levels, process.schedule, process.t_max),
    t_min=np.zeros(()),  # type: ignore[arg-type]  # no array of a trace that this may stand in
    t_max=process.t_max,
    inverse=Partial(_time, process),
    by_noise=process.by_noise,
  )
  table = build(turned, last - ts[::-1], **options)
  return table.replace(rows=table.rows._replace(t=last - np.asarray(table.rows.t)))


def _levels(schedule: Callable, t_max: Array, t: Array) -> tuple[Array, Array]:
  return schedule(t_max - t)


def _time(process: Process, lam: Array) -> Array:
  return process.t_max - process.lam_inverse(lam)


def reconstructed(
  denoise: Denoise, ts: Any, x: Data, cond: Cond = None, *, build: Callable = ddim, target: Cond = None
) -> tuple[Data, Data]:
  """Data (B, ...) encoded into noise and drawn again: (the noise, what it draws); see `inversion`.

  `target` is another condition to draw under, the source's own where None: an edit of x by its deterministic code.
  """
  noise = sample(denoise, inversion(denoise.process, ts, build), x, cond=cond)
  return noise, sample(denoise, build(denoise.process, ts), noise, cond=cond if target is None else target)
