"""Consistency trajectory models: one network jumps from any time to any other, and is the denoiser where they meet."""

from collections.abc import Mapping
from typing import Any

from jax import Array
from jax.lax import stop_gradient

from diffjax import losses
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.analytic import formed
from diffjax.fewstep.flow_map import added, flow_map
from diffjax.fewstep.iterated import drawing
from diffjax.fewstep.jumps import Jump, jump_from
from diffjax.fewstep.segments import by_jump, by_solver, taught
from diffjax.losses import times
from diffjax.methods.parts import Parts
from diffjax.methods.starts import loads
from diffjax.prediction import Denoiser
from diffjax.train.ema import constant
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['consistency_trajectory', 'to_the_end']


def consistency_trajectory(
  parts: Parts,
  *,
  intervals: int = 17,
  most: int = 6,
  rho: float = 7.0,
  taught_by: str = 'teacher',
  distance: Any = None,
  decay: float = 0.99,
  denoising: float = 10.0,
  gamma: float = 0.0,
  scale: float = 1.0,
  form: Any = None,
) -> Method:
  """Jumps from t to s agree with the teacher's way to u and the student's from there, compared at the data.

  d(G'(G(x_t, t, s), s, end), sg G'(G(x_u, u, s), s, end)) + lam |D - x0|^2, G = (s/t) x + (1 - s/t) g on EDM's process,
  D(x, t) = g(x, t, t); x_u by Heun steps of the teacher along the grid, G' an average of G, lam from the gradients in
  the last layer. The adversarial term of the paper is left out.   arXiv:2310.02279 Alg. 1

  Args:
    parts: what the config has made; a network of two times.
    intervals: of the grid.
    most: grid steps that the teacher takes at most.
    rho: of the grid.
    taught_by: 'teacher', or 'self' for the target's own jump from t to u.
    distance: as of `consistency_distillation`.
    decay: of the average.
    denoising: the most that lam may be; 0 leaves the denoising loss out.
    gamma: the noise between jumps when sampling: 0 none, 1 to the end and back each time.
    scale: the guidance of the teacher, 1 for none.
    form: of the jumps, 'through' unless given, or 'analytic', measured on the teacher (`fewstep.analytic.formed`).

  Raises:
    InputError: no teacher, or one that does not fit; another network; a number out of its range.
  """
  if taught_by not in ('teacher', 'self') or denoising < 0:
    raise InputError(f'taught_by, denoising: got {taught_by!r}, {denoising}; allowed: teacher or self, at least 0')
  jump = jump_from(parts, paired=True)
  source, teacher = taught(parts, scale) if taught_by == 'teacher' else (None, None)
  own = formed(form, parts, jump, source, teacher)
  law, apart = pairs.triples(intervals, most=most, rho=rho), distances.named(distance or 'l2')
  steps = by_solver(parts.process, teacher, most=most, ladder=(intervals, rho)) if teacher else None
  plain = losses.denoising(parts.process, parts.net, parts.kind, times=times.lognormal(-1.2, 1.2))

  def built(jump: Jump) -> Any:
    way = steps or by_jump(jump, 'target')
    loss = flow_map(jump, law, way, distance=apart, target='student', project=to_the_end(jump, 'target'))
    return added(loss, plain, leaf='out', name='denoising', most=denoising) if denoising else loss

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return parts.denoiser(roles['student'], 'its method drops no labels' if parts.classes else '')

  return Method(
    phases=(Phase('student', own.loss(built), parts.optimiser()),),
    copies=own.copies | {'target': Copy('student', constant(decay))},
    init=lambda key: own.init() | {'student': parts.init(key)},
    loads=loads(source),
    denoiser=denoiser,
    generator=drawing(parts, own.jump, gamma),
  )


def to_the_end(jump: Jump, role: str) -> Any:
  """What is compared: where this role's jump leads from x_s to the end."""

  def shown(roles: Mapping[str, Any], x: Array, s: Array, cond: Cond, key: Any) -> Array:
    return jump(stop_gradient(roles[role]), x, s, jump.end, cond, key)

  return shown
