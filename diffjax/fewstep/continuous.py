"""Continuous-time consistency: the jump to the data does not change along the flow, by one jvp."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.flow_map import PROGRESS, flow_map_jvp, progress
from diffjax.fewstep.iterated import drawing
from diffjax.fewstep.jumps import Jump, jump_from
from diffjax.fewstep.segments import Point, taught, velocity
from diffjax.losses.times import lognormal
from diffjax.losses.uncertainty import add_head, balanced, log_level
from diffjax.methods.parts import Parts
from diffjax.methods.starts import check_fits, loads
from diffjax.process import expand
from diffjax.train.roles import Method, Phase

__all__ = ['continuous_consistency', 'tangent']


def continuous_consistency(
  parts: Parts,
  *,
  taught_by: str = 'teacher',
  mean: float = -1.0,
  std: float = 1.4,
  warm_up: int = 10_000,
  normalised: bool = True,
  balanced_levels: bool = True,
  scale: float = 1.0,
  warm: bool = False,
) -> Method:
  """sCM: the jump to the data does not change along the flow, dF/dt = 0 by one jvp.

  With theta = arctan(sigma / (alpha sd)), kind `edm` and f the x0 that it stands for,
      e^-w |out - sg(out - g)|^2 + w,    g = cos theta df/dtheta / (|.| + .1),
  whose part but cot theta (f - x0) grows in over `warm_up` steps. x0 and the flow are the teacher's (sCD) or the
  example's (sCT).   arXiv:2410.11081 Alg. 1

  Args:
    parts: what the config has made.
    taught_by: 'teacher', or 'data' for none.
    mean: of log(sigma / alpha).
    std: its deviation.
    warm_up: steps until the whole tangent counts; 1 for none.
    normalised: whether g is divided by its norm plus .1.
    balanced_levels: whether the levels are weighed by a learned w.
    scale: the guidance of the teacher, 1 for none.
    warm: whether the student begins as the teacher; without learned weights.

  Raises:
    InputError: another kind than `edm`; no teacher, or one that does not fit; a number out of its range.
  """
  if not parts.kind.by_noise:
    raise InputError('loss.kind: got one that is told the time; allowed with continuous_consistency: edm')
  if taught_by not in ('teacher', 'data') or warm_up < 1 or (warm and (balanced_levels or taught_by == 'data')):
    raise InputError(f'taught_by, warm_up, warm: got {taught_by!r}, {warm_up}, {warm}; allowed: teacher or data, at '
                     'least 1, and warm with a teacher and without balanced_levels')  # fmt: skip
  source, teacher = taught(parts, scale) if taught_by == 'teacher' else (None, None)
  if warm and source is not None:
    check_fits(parts, source)
  jump = jump_from(parts, end=0.0)

  def init(key: Array) -> dict[str, Any]:
    student = parts.init(key)
    return {'student': add_head(student, jax.random.fold_in(key, 1)) if balanced_levels else student}

  loss = flow_map_jvp(
    jump,
    pairs.ending(lognormal(mean, std), 0.0),
    velocity(parts.process, teacher),
    tangent(warm_up, normalised),
    distance=distances.l2(),
    balance=_by_level(jump) if balanced_levels else None,
  )
  return Method(
    phases=(Phase('student', loss, parts.optimiser()),),
    copies={'student': 'teacher'} if warm else {},
    init=(lambda key: {}) if warm else init,
    loads=loads(source),
    buffers={PROGRESS: progress()},
    generator=drawing(parts, jump),
  )


def tangent(warm_up: int, normalised: bool = True) -> Callable[..., Array]:
  """The correction -g of `continuous_consistency`, in units of the data's deviation.

  g = cos [cot (f - D) + r (df/dtheta - cot (f - D))], where D is the x0 that the flow's slope stands for, r the share
  of the warm-up that is done, and df/dtheta = df/dt / theta', theta' = -lam' sin cos.   arXiv:2410.11081 sec. 4.1
  """

  def correction(
    roles: Mapping[str, Any], jump: Jump, at: pairs.Times, point: Point, slope: Array, f: Array, df: Array
  ) -> Array:
    process = jump.process
    alpha, sigma = process.schedule(at.t)
    d_alpha, d_sigma = process.rates(at.t)
    det = alpha * d_sigma - sigma * d_alpha
    clean = expand(d_sigma / det, f) * point.x - expand(sigma / det, f) * slope  # x0 of (x_t, dx/dt)
    form = jump.kind(process, at.t)
    (from_x, from_out), sine = form.x0, sigma * form.c_in  # x0 = sd c_in cos theta x + sd sin theta out
    sd = from_out / sine
    cosine = from_x / (form.c_in * sd)
    slow = expand(cosine**2 / sine, f) * (f - clean)
    whole = expand(alpha * sigma / (det * sine), f) * df  # cos / theta' = 1 / (-lam' sin), -lam' = det / (alpha sigma)
    done = jnp.clip((jnp.asarray(roles.get(PROGRESS, warm_up), f.dtype) + 1) / warm_up, 0, 1)
    g = (slow + done * (whole - slow)) / expand(sd, f)
    if normalised:
      g = g / (jnp.sqrt(jnp.sum(g**2, axis=tuple(range(1, g.ndim)), keepdims=True)) + 0.1)
    return -g

  return correction


def _by_level(jump: Jump) -> Callable[[Mapping[str, Any], Array, Array], Array]:
  return lambda roles, t, values: balanced(values, log_level(roles['student'], jump.process, t))
