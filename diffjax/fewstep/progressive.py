"""Progressive distillation: one step of the student for two of its teacher, halving after halving."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.fewstep.lessons import Lesson, implied_x0, jumps, matching, noised, on_grid
from diffjax.fewstep.stages import Plan, halvings, plan, restarted, tutor
from diffjax.methods import Parts, Sampling, Solved, Source, solved
from diffjax.methods.starts import beginning, same_network
from diffjax.prediction import Denoiser
from diffjax.process import Process
from diffjax.train.roles import Method, Phase

__all__ = ['progressive']

UNTOLD = 'its distillation drops no labels'


def progressive(
  parts: Parts,
  start: int = 64,
  end: int = 1,
  stages: tuple[float, ...] = (),
  weight: str = 'truncated_snr',
  distance: str = 'l2',
) -> Method:
  """Progressive distillation: halves the steps of DDIM again and again, until `end` are left.

  With n steps on t_i = t_max i / n, i uniform on 1 .. n, two steps of the tutor lead from t = t_i by m to r = t_{i-1},

      X = implied_x0(x_t, x_r),     loss = w(t) |x0_student(x_t, t) - sg X|^2,     w = max(alpha^2 / sigma^2, 1).

  The tutor is the teacher at first, and after each stage the student; moments and rate of the optimiser begin anew.
  A teacher of the student's own network and kind is where the student begins; of any other (a closed form) it learns in
  the first stage, which should then be the longest. Sample with solver ddim, grid uniform and `end` steps.

  arXiv:2202.00512 Alg. 2

  Args:
    parts: with a teacher of this process.
    start: steps of the teacher.
    end: steps of the last student.
    stages: the share of the run that each halving has; equal by default.
    weight: of the error in x0: truncated_snr, snr_plus_one or unit.
    distance: l2 or l1.

  Raises:
    InputError: no teacher or another's, numbers of steps that are no halvings, shares or names that do not fit.
  """
  teacher, counts = parts.source('teacher'), halvings(start, end)
  cut = plan(parts.steps, len(counts), stages)
  shapes = jax.eval_shape(parts.init, jax.random.key(0))
  begins_as = same_network(parts, teacher)
  count = lambda roles: jnp.asarray(counts, jnp.float32)[cut.stage(roles['tutor'].step)]  # noqa: E731
  lesson = halving(parts.process, count, tutors(parts, cut, teacher, begins_as))
  loss = matching(parts, lesson, weight=weight, distance=distance)

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return parts.denoiser(roles['student'], UNTOLD if parts.classes else '')

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    solver = on_grid(parts.process, sampling.solver(), end)
    return solved(sampling.guided(denoiser(roles)), solver, parts.shape, sampling.data)

  return Method(
    (Phase('student', loss, restarted(parts.optimiser, cut)),),
    **beginning(parts, teacher),
    buffers={'tutor': tutor(shapes, cut.starts)},
    fixed_length=True,
    denoiser=denoiser,
    generator=generator,
  )


def tutors(parts: Parts, cut: Plan, teacher: Source, begins_as: bool) -> Callable:
  """Who is asked: (roles, x, t, cond) -> x0 of the tutor, in the first stage of the teacher unless that is the same."""

  def predict(roles: Mapping[str, Any], x: Array, t: Array, cond: Cond) -> Array:
    def own() -> Array:
      return parts.denoiser(roles['tutor'].params)(x, t, cond).x0

    if begins_as:
      return own()
    first = cut.stage(roles['tutor'].step) == 0
    return jax.lax.cond(first, lambda: teacher.denoiser(roles.get('teacher', ()))(x, t, cond).x0.astype(x.dtype), own)

  return predict


def halving(process: Process, count: Callable, predict: Callable, reach: int = 1) -> Callable:
  """The lesson of a student of n steps: two jumps of the tutor, each half as long as the student's.

  Args:
    process: the forward process.
    count: roles -> n.
    predict: (roles, x, t, cond) -> x0 of the tutor.
    reach: strides of the grid that a jump of the student spans, cut off at 0.
  """

  def lesson(roles: Mapping[str, Any], batch: dict[str, Any], key_batch: KeyBatch) -> Lesson:
    k_place, k_eps = keys.split(key_batch, 2)
    n = count(roles)
    place = drawn_place(n, k_place)
    last = jnp.maximum(place - reach, 0)
    t, m, r = (process.t_max * at / n for at in (place, jnp.maximum(place - reach / 2, last), last))
    x, cond = noised(process, batch, t, k_eps), batch.get('cond')
    y = jumps(process, lambda *at: predict(roles, *at), x, (t, m, r), cond)
    return Lesson(x, t, cond, implied_x0(process, x, y, t, r))

  return lesson


def drawn_place(n: Array | float, key_batch: KeyBatch) -> Array:
  """A place on the grid, 1 .. n, one a key."""
  return 1 + jnp.minimum(jnp.floor(keys.uniform(key_batch) * n), n - 1)
