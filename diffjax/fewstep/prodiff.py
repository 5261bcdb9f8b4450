"""ProDiff: one halving of a teacher that predicts the data themselves."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.lessons import Lesson, jumps, matching, noised, on_grid
from diffjax.fewstep.progressive import UNTOLD, drawn_place, halving
from diffjax.methods import Parts, Sampling, Solved, solved
from diffjax.methods.starts import beginning
from diffjax.prediction import Denoiser
from diffjax.train.roles import Method, Phase

__all__ = ['prodiff']

TARGETS = ('implied', 'endpoint')


def prodiff(
  parts: Parts, steps: int = 4, target: str = 'implied', weight: str = 'unit', distance: str = 'l1'
) -> Method:
  """ProDiff: a student of half its teacher's steps, which sees what the teacher's own steps lead to.

  At t = t_max i / n, i uniform on 1 .. n = steps / 2, with the teacher's DDIM steps of length t_max / steps,

      implied    the x0 whose one step is two of the teacher's: those of the student are the teacher's `steps`;
      endpoint   the teacher's sample from x_t: any step of the student may be its last, as good as all.

  Neither varies given x_t. (To train on the teacher's samples as data, noised anew, would give E[sample | x_t], the
  teacher again, and no faster.) The loss is |x0_student - sg target| of a network that predicts the data, kind x0.
  Sample on grid uniform of n steps with solver ddim, or ddpm, the paper's, here on the student's own coarse grid; the
  student of `endpoint` on that of any divisor of n too.

  arXiv:2207.06389

  Args:
    parts: with a teacher of this process.
    steps: of the teacher, even.
    target: implied or endpoint.
    weight: of the error in x0: unit, truncated_snr or snr_plus_one.
    distance: l1 or l2.

  Raises:
    InputError: no teacher or another's, an odd number of steps, a target, weight or distance of another name.
  """
  if steps < 2 or steps % 2:
    raise InputError(f'steps: got {steps}; allowed: an even number, of the teacher')
  if target not in TARGETS:
    raise InputError(f'target: got {target!r}; allowed: {", ".join(TARGETS)}')
  teacher, process, n = parts.source('teacher'), parts.process, steps // 2

  def predict(roles: Mapping[str, Any], x: Array, t: Array, cond: Cond) -> Array:
    return teacher.denoiser(roles.get('teacher', ()))(x, t, cond).x0

  def endpoint(roles: Mapping[str, Any], batch: dict[str, Any], key_batch: KeyBatch) -> Lesson:
    k_place, k_eps = keys.split(key_batch, 2)
    place = drawn_place(n, k_place)
    ts = [process.t_max * jnp.maximum(place / n - i / steps, 0) for i in range(steps + 1)]
    x, cond = noised(process, batch, ts[0], k_eps), batch.get('cond')
    return Lesson(x, ts[0], cond, jumps(process, lambda *at: predict(roles, *at), x, ts, cond))

  lesson = halving(process, lambda roles: n, predict) if target == 'implied' else endpoint
  loss = matching(parts, lesson, weight=weight, distance=distance)

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return parts.denoiser(roles['student'], UNTOLD if parts.classes else '')

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    solver = on_grid(process, sampling.solver(), n, whole=target == 'implied')
    return solved(sampling.guided(denoiser(roles)), solver, parts.shape, sampling.data)

  return Method(
    (Phase('student', loss, parts.optimiser()),),
    **beginning(parts, teacher),
    denoiser=denoiser,
    generator=generator,
  )
