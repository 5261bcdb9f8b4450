"""Reflow: a flow trained on the pairs that another flow makes is straighter, and at last one step."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import guidance, keys, schedules, solvers
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.lessons import Line, on_grid, paired
from diffjax.fewstep.stages import Plan, plan, restarted, tutor
from diffjax.methods import Parts, Sampling, Solved, Source, same_process, solved
from diffjax.methods.starts import beginning
from diffjax.prediction import Denoise, Denoiser
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers import Solver, grids
from diffjax.train.roles import Buffer, Method, Phase

__all__ = ['reflow']


def reflow(
  parts: Parts,
  rounds: int = 1,
  distil: bool = False,
  stages: tuple[float, ...] = (),
  pool: int = 2048,
  fresh: int = 16,
  steps: int = 20,
  scale: float = 1.0,
) -> Method:
  """Reflow: pairs (z, x0) of a flow's noise and the sample it makes of it, and a straighter flow through them.

  |v(x_t, t) - (z - x0)|^2 at x_t = (1 - t) x0 + t z, t uniform on [t_min, 1]; of kinds other than velocity likewise.

  The pairs of the first round are the teacher's, of its own process; in later rounds the student's of the round before.
  Marginals stay, and the cost E |z - x0|^2 does not grow. With `distil` a last stage trains the one step from t = 1 on
  the student's own pairs, as InstaFlow does, there with a perceptual distance. Data are not read, but for labels.

  arXiv:2209.03003 Alg. 1, arXiv:2309.06380

  Args:
    parts: on the process flow; with a teacher on any.
    rounds: of reflow.
    distil: whether one step is distilled at the end; sample with one then.
    stages: the share of the run that each round, and the distillation, has; equal by default.
    pool: pairs kept, from which batches are drawn.
    fresh: pairs made at each step, in place of the oldest; a divisor of `pool`.
    steps: of dpmpp_2m on the grid noise_share, by which pairs are made.
    scale: of the teacher's guidance, which the pairs keep.

  Raises:
    InputError: no teacher or one of another shape or labels, a process that is not flow, numbers that do not fit.
  """
  teacher, process = parts.source('teacher', process=False), parts.process
  if not same_process(process, schedules.flow()):
    raise InputError('process: got one whose paths from data to noise are no lines; allowed: flow')
  if rounds < 1:
    raise InputError(f'rounds: got {rounds}; allowed: one or more')
  if scale != 1 and not parts.classes:
    raise InputError(f'scale: got {scale}; allowed: 1, since data.classes is 0')
  cut = plan(parts.steps, rounds + distil, stages)
  shapes = jax.eval_shape(parts.init, jax.random.key(0))
  buffers = {'tutor': tutor(shapes, cut.starts), 'pairs': _pairs(parts, cut, teacher, (pool, fresh, steps), scale)}

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return parts.denoiser(roles['student'], 'reflow drops no labels' if parts.classes else '')

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    solver = on_grid(process, sampling.solver(), 1) if distil else sampling.solver()
    return solved(sampling.guided(denoiser(roles)), solver, parts.shape, sampling.data)

  return Method(
    (Phase('student', paired(parts, _line(process, cut, distil)), restarted(parts.optimiser, cut)),),
    **beginning(parts, teacher),
    buffers=buffers,
    fixed_length=True,
    denoiser=denoiser,
    generator=generator,
  )


class Pairs(PyTree):
  """Noise z and the samples x it was taken to (pool, ...), their labels, and how many are of the present stage."""

  z: Array
  x: Array
  cond: Cond
  held: Array


def _pairs(parts: Parts, cut: Plan, teacher: Source, sizes: tuple[int, int, int], scale: float) -> Buffer:
  """The pool of pairs: at each step the oldest `fresh` make room for new ones, in a new stage all of them do."""
  pool, fresh, steps = sizes
  first, later = (solvers.dpmpp_2m(p, grids.noise_share(p, steps)) for p in (teacher.process, parts.process))

  def since(roles: Mapping[str, Any]) -> Array:
    return roles['tutor'].step - jnp.asarray(cut.starts, jnp.int32)[cut.stage(roles['tutor'].step)]

  def draw(roles: Mapping[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, Array, Cond]:
    z = keys.normal(keys.per_sample(key, fresh), parts.inputs(fresh)[0])
    cond = jnp.resize(batch['cond'], (fresh,)) if parts.classes else None

    def by_teacher() -> Array:
      denoise = teacher.denoiser(roles.get('teacher', ()))
      return ends(guidance.cfg(denoise, scale) if scale != 1 else denoise, first, z, cond)

    def by_tutor() -> Array:
      return ends(parts.denoiser(roles['tutor'].params), later, z, cond)

    alone = len(cut.starts) == 1
    x = by_teacher() if alone else jax.lax.cond(cut.stage(roles['tutor'].step) == 0, by_teacher, by_tutor)
    return z, x, cond

  return pool_of(parts, pool, fresh, draw, since)


def pool_of(
  parts: Parts,
  pool: int,
  fresh: int,
  draw: Callable[[Mapping[str, Any], Any, Array], tuple[Array, Array, Cond]],
  since: Callable[[Mapping[str, Any]], Array],
) -> Buffer:
  """The buffer of `Pairs`: at each step `fresh` new ones take the place of the oldest.

  Args:
    parts: of the recipe.
    pool: how many are kept.
    fresh: how many are made at a step, a divisor of `pool`.
    draw: (roles, batch, key) -> so many (z, x, cond).
    since: roles -> the number of steps since the pool began, empty, the present one not counted.

  Raises:
    InputError: a number of fresh ones that does not divide the pool.
  """
  if fresh < 1 or pool % fresh:
    raise InputError(f'pool, fresh: got {pool}, {fresh}; allowed: a pool that is a multiple of fresh')

  def init(key: Array) -> Pairs:
    x, _, cond = parts.inputs(pool)
    return Pairs(x, x, cond, jnp.zeros((), jnp.int32))

  def renew(roles: Mapping[str, Any], kept: Pairs, batch: dict[str, Any], key: Array) -> Pairs:
    done = since(roles)
    place = done * fresh % pool
    put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), place, 0)  # noqa: E731
    z, x, cond = jax.tree.map(put, (kept.z, kept.x, kept.cond), draw(roles, batch, key))
    return Pairs(z, x, cond, jnp.minimum((done + 1) * fresh, pool))

  return Buffer(init, renew)


def ends(denoise: Denoise, solver: Solver, z: Array, cond: Cond = None) -> Array:
  """Where the flow of a denoiser takes the noise z (B, ...)."""
  process: Process = denoise.process
  return solvers.sample(denoise, solver, process.schedule(process.t_max)[1] * z, None, cond)


def _line(process: Process, cut: Plan, distil: bool) -> Callable:
  def line(roles: Mapping[str, Any], batch: dict[str, Any], key_batch: KeyBatch) -> Line:
    k_row, k_t = keys.split(key_batch, 2)
    pairs = roles['pairs']
    row = jnp.floor(keys.uniform(k_row) * pairs.held).astype(jnp.int32)
    z, x0, cond = jax.tree.map(lambda leaf: leaf[row], (pairs.z, pairs.x, pairs.cond))
    t = process.t_min + keys.uniform(k_t) * (process.t_max - process.t_min)
    if distil:
      t = jnp.where(cut.stage(roles['tutor'].step) == len(cut.starts) - 1, process.t_max, t)
    return Line(x0, z, t, cond)

  return line
