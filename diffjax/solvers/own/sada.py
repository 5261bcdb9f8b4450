"""SADA, step mode: a network that is not asked where the trajectory is smooth enough to go on without it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import labels
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand
from diffjax.solvers import precision
from diffjax.solvers.own.adaptive import Solution
from diffjax.solvers.table import Table

__all__ = ['sada']

PUBLISHED = (0.625, 0.75, -0.375)
STORED = 4  # predictions that Lagrange's interpolation goes through


class Plan(NamedTuple):
  """What is known of each row beforehand: the step in time and its extrapolation, whether the next may be skipped."""

  place: Any
  dt: Any
  weights: Any
  free: Any
  late: Any
  due: Any


def sada(
  denoise: Denoise,
  table: Table,
  x: Array,
  cond: Cond = None,
  *,
  between: tuple[float, float] = (0.2, 0.94),
  most: int = 4,
  late: float = 0.48,
  every: int = 4,
  extrapolation: str = 'published',
  batch_coupled: bool = False,
) -> Solution:
  """A deterministic table whose evaluations are skipped by a stability criterion; evaluations are reported a sample.

  With y = dx/dt of the probability-flow ODE at the last three rows, the next point is also extrapolated,
  x^ = x_n + dt (w_0 y_n + w_1 y_{n-1} + w_2 y_{n-2}), and the next evaluation is skipped, its point x^ and its eps the
  last one, where

      mean[(x_{n+1} - x^) (y_n - 2 y_{n-1} + y_{n-2})] <= 0,

  at most `most` times in a row. From the share `late` of the rows on, every `every`-th row is evaluated and x0 at the
  others is the polynomial through the last four that were. Published for 50 steps of DPM-Solver++(2M).

  Of use on grids even in t, as published; on `uniform_lam` and `quadratic` as many steps without skipping are nearer to
  the 50 (GM-A).   arXiv:2507.17135 Alg. 1

  Args:
    denoise: what is asked for predictions, without memory between evaluations.
    table: one evaluation a row, no noise.
    x: the start (B, ...), noise at the first time of the grid.
    cond: the condition of each sample, with the batch first.
    between: the shares of the rows between which evaluations may be skipped; an empty range skips none.
    most: evaluations skipped in a row.
    late: the share of the rows from which the pattern is fixed, within `between`.
    every: of that pattern.
    extrapolation: 'published', (5/8, 3/4, -3/8), of first order, or 'adams', of third order on any grid, which skips
      less.
    batch_coupled: one decision for the whole batch, as published; otherwise one a sample, and the network runs where
      any sample asks for it.

  Raises:
    InputError: a table that draws or skips, a range outside [0, 1], too few rows before `late`, another name.
  """
  if table.stochastic or table.skips:
    raise InputError('table: got one that draws noise or has rows without evaluation; allowed: one that does neither')
  if not 0 <= between[0] <= 1 or not 0 <= between[1] <= 1 or most < 0 or every < 1:
    raise InputError(f'between, most, every: got {between}, {most}, {every}; allowed: shares, and whole numbers')
  if extrapolation not in ('adams', 'published'):
    raise InputError(f'extrapolation: got {extrapolation!r}; allowed: adams, published')
  n = table.rows.t.shape[0]
  first, last = max(3, round(between[0] * n)), round(between[1] * n)
  start = max(first, round(late * n))
  if first < last and start < 2 * STORED:
    raise InputError(f'late: got {late} of {n} rows; allowed: at least {2 * STORED} rows before')
  place = np.arange(n)
  dt = jnp.append(jnp.diff(jnp.asarray(table.rows.t, float)), 0.0)  # the table may be traced
  plan = Plan(
    place.astype(np.float32),
    dt,
    _weights(dt) if extrapolation == 'adams' else np.tile(PUBLISHED, (n, 1)),
    (place + 1 >= first) & (place + 1 < min(last, start)),
    (place >= start) & (place < last),
    (place - start) % every == 0,
  )
  labels.check_for(denoise, cond)
  return _sada(denoise, table, x, cond, jax.tree.map(jnp.asarray, plan), jnp.asarray(most), bool(batch_coupled))


def _weights(dt: Array) -> Array:
  """Adams-Bashforth's weights of third order (n, 3) for the steps dt (n,), exact for slopes quadratic in t.

  Of unit length for the first two rows, which have no such past, and for the last, which has no next.
  """
  one, step = jnp.ones(2), jnp.where(dt == 0, 1.0, dt)
  before = jnp.concatenate([one, dt[:-1]])  # the steps that ended at row i and at the row before it
  back = jnp.stack([jnp.zeros_like(dt), -before[1:], -before[1:] - before[:-1]], 1) / step[:, None]
  powers = back[:, None, :] ** jnp.arange(3)[:, None]
  return jnp.linalg.solve(powers, jnp.tile(1 / jnp.arange(1.0, 4), (len(dt), 1))[..., None])[..., 0]


class State(NamedTuple):
  """The table's registers, earlier slopes, the last eps, stored predictions and their places, and counts a sample."""

  registers: tuple
  y1: Array
  y2: Array
  eps: Array
  x0s: Array
  places: Array
  skip: Array
  run: Array
  nfe: Array


@partial(jax.jit, static_argnames='coupled')
def _sada(denoise, table, x, cond, plan, most, coupled) -> Solution:
  process = denoise.process
  denoise, given, x = precision.with_networks_in(denoise, x), x, precision.widened(x)
  b, axes = len(x), tuple(range(1, x.ndim))

  def step(s: State, inputs: tuple) -> tuple[State, None]:
    row, at = inputs
    point, t = s.registers[0], row.t.astype(x.dtype)
    alpha, sigma = process.schedule(t)
    asked = jnp.where(at.late, at.due, ~s.skip)
    fresh = jax.lax.cond(
      jnp.any(asked), lambda: precision.paired(denoise(point, t, cond, None)._replace(aux=()), point), lambda: blank
    )
    through = _lagrange(s.x0s, s.places, at.place)
    x0 = jnp.where(at.late, through, (point - sigma * s.eps) / jnp.where(alpha > 0, alpha, 1))
    eps = jnp.where(at.late, (point - alpha * through) / sigma, s.eps)
    pred = Pred(*(jnp.where(expand(asked, x), a, r) for a, r in zip(fresh[:2], (x0, eps), strict=True)))
    y = process.velocity(pred.x0, pred.eps, t)
    after = table.update(s.registers, pred, row, None)
    ahead = point + (at.dt * (at.weights[0] * y + at.weights[1] * s.y1 + at.weights[2] * s.y2)).astype(x.dtype)
    bend = jnp.mean((after[0] - ahead) * (y - 2 * s.y1 + s.y2), axis=axes)
    bend = jnp.full_like(bend, jnp.mean(bend)) if coupled else bend
    skip = at.free & (bend <= 0) & (s.run < most)
    after = (jnp.where(expand(skip, x), ahead, after[0]), *after[1:])
    kept, places = (
      jnp.where(expand(asked, old), jnp.concatenate([new[:, None], old[:, :-1]], 1), old)
      for new, old in ((pred.x0, s.x0s), (jnp.full(b, at.place), s.places))
    )
    return State(after, y, s.y1, pred.eps, kept, places, skip, jnp.where(skip, s.run + 1, 0), s.nfe + asked), None

  blank = Pred(jnp.zeros_like(x), jnp.zeros_like(x))
  zero = jnp.zeros_like(x)
  stored, places = jnp.zeros((b, STORED, *x.shape[1:]), x.dtype), jnp.tile(-1.0 - jnp.arange(STORED), (b, 1))
  none = jnp.zeros(b, jnp.int32)
  state = State(table.init(x), zero, zero, zero, stored, places, jnp.zeros(b, bool), none, none)
  state, _ = jax.lax.scan(step, state, (jax.tree.map(jnp.asarray, table.rows), plan))
  return Solution(precision.rounded(table.output(state.registers), given), state.nfe, jnp.ones(b, bool))


def _lagrange(values: Array, places: Array, place: Array) -> Array:
  """The polynomial through values (B, k, ...) at places (B, k), at one place."""
  total = jnp.zeros_like(values[:, 0])
  for j in range(STORED):
    others = [k for k in range(STORED) if k != j]
    share = [(place - places[:, k]) / (places[:, j] - places[:, k]) for k in others]
    total = total + expand(jnp.prod(jnp.stack(share), axis=0), total) * values[:, j]
  return total
