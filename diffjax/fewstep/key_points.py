"""Key points (AccVideo): a student of a few straight lines between points on trajectories that its teacher recorded."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys, solvers
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.adversarial import Draw, Shown, judge_of
from diffjax.fewstep.contest import contested
from diffjax.fewstep.iterated import Iterated, iterated
from diffjax.fewstep.jumps import Jump, jump_from
from diffjax.fewstep.lessons import Line, implied_x0, paired
from diffjax.fewstep.segments import Teacher, taught
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import beginning
from diffjax.prediction import complete
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.train.roles import Buffer, Method, Phase

__all__ = ['key_points']

RECORD = 'record'


def key_points(
  parts: Parts,
  *,
  points: int = 4,
  shift: float = 1.0,
  trajectories: int = 4096,
  fresh: int = 16,
  steps: int = 64,
  scale: float = 1.0,
  adversarial: float = 0.1,
  discriminator: Any = None,
  pace: float = 1.0,
) -> Method:
  """Key points: each step of the student is the chord between two recorded points of one trajectory of the teacher.

      |v(x_k, t_k) - (x_{k+1} - x_k) / (t_{k+1} - t_k)|^2 + lam softplus(-D(x_j', t_j))

  on rectified flow; of other kinds the error of the output with which DDIM takes x_k to x_{k+1}. x_j' is where the
  student's own steps lead from recorded noise, with a gradient through the last of them alone, and D tells it from the
  points recorded at t_j. The trajectories are recorded once, `fresh` a step until there are all; data are not read, but
  for labels.

  arXiv:2503.19462

  Args:
    parts: with a teacher on this process.
    points: M, the steps of the student.
    shift: the key times are t_max a u / (1 + (a - 1) u), u even; 1 is even.
    trajectories: that are recorded.
    fresh: recorded in each of the first steps; a divisor of `trajectories`.
    steps: of dpmpp_2m, by which they are recorded; a multiple of `points`.
    scale: of the teacher's guidance, which the record keeps.
    adversarial: lam; 0 leaves the discriminator out.
    discriminator: as of `adversarial.judge_of`.
    pace: its learning rate as a multiple of the student's.

  Raises:
    InputError: no teacher, or one that does not fit; numbers that do not fit.
  """
  source, teacher = taught(parts, scale)
  if points < 1 or steps % points or fresh < 1 or trajectories % fresh:
    raise InputError(f'points, steps, trajectories, fresh: got {points}, {steps}, {trajectories}, {fresh}; allowed: '
                     'steps a multiple of points, and trajectories one of fresh')  # fmt: skip
  if not (shift > 0 and adversarial >= 0):
    raise InputError(f'shift, adversarial: got {shift}, {adversarial}; allowed: a positive number, and at least 0')
  ts, jump = key_times(parts.process, points, shift), jump_from(parts, end=0.0)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Iterated:
    if sampling.steps != points:
      raise InputError(f'steps: got {sampling.steps}; allowed: {points}, the key points of the training')
    return iterated(parts, jump, roles['student'], dataclasses.replace(sampling, grid=lambda: ts), gamma=0.0)

  grid = key_times(parts.process, steps, shift)
  method = Method(
    (Phase('student', paired(parts, chord(parts.process, ts)), parts.optimiser()),),
    **beginning(parts, source),
    buffers={RECORD: recorded(parts, teacher, grid, (points, trajectories, fresh))},
    generator=generator,
  )
  if not adversarial:
    return method
  judge, rows = judge_of(parts, discriminator), (at_key_point(ts), rolled(jump, ts))
  return contested(method, parts, judge, *rows, most=adversarial, pace=pace)


def key_times(process: Process, n: int, shift: float) -> np.ndarray:
  """The n + 1 times t_max a u / (1 + (a - 1) u), u evenly from 1 to 0."""
  u = np.linspace(1.0, 0.0, n + 1)
  return float(process.t_max) * shift * u / (1 + (shift - 1) * u)


class Record(PyTree):
  """Points on trajectories (trajectories, M + 1, ...) from noise to data, their labels, how many are recorded."""

  x: Array
  cond: Cond
  held: Array

  def row(self, key_batch: KeyBatch) -> Array:
    """The number of a trajectory, (B,), each as likely."""
    return jnp.floor(keys.uniform(key_batch) * self.held).astype(jnp.int32)


def recorded(parts: Parts, teacher: Teacher, grid: Any, sizes: tuple[int, int, int]) -> Buffer:
  """The record: so many new trajectories a step, until there are all; then it stays, and the teacher is not asked."""
  points, trajectories, fresh = sizes
  solver = solvers.dpmpp_2m(parts.process, grid)
  every = (len(grid) - 1) // points

  def init(key: Array) -> Record:
    x, _, cond = parts.inputs(trajectories)
    return Record(jnp.zeros((trajectories, points + 1, *x.shape[1:])), cond, jnp.zeros((), jnp.int32))

  def renew(roles: Mapping[str, Any], kept: Record, batch: dict[str, Any], key: Array) -> Record:
    def more() -> Record:
      cond = jnp.resize(batch['cond'], (fresh,)) if parts.classes else None
      x = parts.process.prior(keys.per_sample(key, fresh), parts.inputs(fresh)[0])
      last, (before, _) = solvers.trajectory(teacher(roles), solver, x, None, cond)
      new = jnp.concatenate([jnp.swapaxes(before[::every], 0, 1), last[:, None]], 1)
      put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), kept.held, 0)  # noqa: E731
      x, cond = jax.tree.map(put, (kept.x, kept.cond), (new, cond))
      return Record(x, cond, kept.held + fresh)

    return jax.lax.cond(kept.held < trajectories, more, lambda: kept)

  return Buffer(init, renew)


def chord(process: Process, ts: np.ndarray) -> Callable:
  """From one recorded point to the next, as the line through x_k that DDIM takes there, for `lessons.paired`."""
  times = jnp.asarray(ts, float)

  def line(roles: Mapping[str, Any], batch: dict[str, Any], key_batch: KeyBatch) -> Line:
    k_row, k_point = keys.split(key_batch, 2)
    record = roles[RECORD]
    row, i = record.row(k_row), jnp.floor(keys.uniform(k_point) * (len(ts) - 1)).astype(jnp.int32)
    x, t = record.x[row, i], times[i]
    x0 = implied_x0(process, x, record.x[row, i + 1], t, times[i + 1])
    return Line(x0, complete(process, x, t, x0).eps, t, jax.tree.map(lambda leaf: leaf[row], record.cond))

  return line


def _drawn(ts: np.ndarray, roles: Mapping[str, Any], key_batch: KeyBatch) -> tuple[Array, Array, Array, Cond]:
  """A trajectory's points (B, M + 1, ...), the number of one of them but the first, its time, and the condition."""
  k_row, k_point = keys.split(key_batch, 2)
  row = roles[RECORD].row(k_row)
  j = jnp.floor(keys.uniform(k_point) * (len(ts) - 1)).astype(jnp.int32) + 1
  return roles[RECORD].x[row], j, jnp.asarray(ts, float)[j], jax.tree.map(lambda leaf: leaf[row], roles[RECORD].cond)


def at_key_point(ts: np.ndarray) -> Draw:
  """A recorded point."""

  def draw(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    x, j, t, cond = _drawn(ts, roles, key_batch)
    return Shown(jax.vmap(lambda x, j: x[j])(x, j), t, cond)

  return draw


def rolled(jump: Jump, ts: np.ndarray) -> Draw:
  """Where the student's steps lead from recorded noise; only the last of them has a gradient."""
  times = jnp.asarray(ts, float)

  def draw(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    x, j, t, cond = _drawn(ts, roles, key_batch)

    def one(x: Array, i: Array) -> tuple[Array, None]:
      after = jump(jax.lax.stop_gradient(roles['student']), x, times[i], times[i + 1], cond)
      return jnp.where(expand(i < j - 1, x), after, x), None

    before = jax.lax.scan(one, x[:, 0], jnp.arange(len(ts) - 2))[0]
    return Shown(jump(roles['student'], jax.lax.stop_gradient(before), times[j - 1], t, cond), t, cond)

  return draw
