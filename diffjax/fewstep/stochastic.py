"""SCott: consistency distillation along the teacher's stochastic flow, with an adversarial term."""

from typing import Any

from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.adversarial import at_level, from_data, judge_of
from diffjax.fewstep.analytic import formed
from diffjax.fewstep.consistency import distilled
from diffjax.fewstep.contest import contested, from_jump
from diffjax.fewstep.jumps import jump_from
from diffjax.fewstep.segments import by_noisy_steps, taught
from diffjax.losses.times import lognormal
from diffjax.methods.parts import Parts
from diffjax.train.roles import Method

__all__ = ['stochastic_consistency']


def stochastic_consistency(
  parts: Parts,
  *,
  intervals: int = 17,
  rho: float = 7.0,
  eta: float = 0.3,
  steps: int = 3,
  distance: Any = None,
  decay: float = 0.95,
  scale: float = 1.0,
  warm: bool = False,
  adversarial: float = 0.2,
  discriminator: Any = None,
  pace: float = 1.0,
) -> Method:
  """SCott: a jump to the data agrees with itself where a few stochastic steps of the teacher lead.

      d(f(x_t, t), sg f'(x_u, u)) + lam softplus(-D(alpha_r f + sigma_r eps, r)),    x_u by `by_noisy_steps`

  With eta 0, one step and lam 0 it is consistency distillation by DDIM, bit for bit. Under a square distance it rests
  at f(x_t, t) = E[f(x_u, u) | x_t], at eta 1 at the denoiser itself, whose one step is a blur: keep eta small, draw in
  two to four steps, and let the discriminator sharpen. It sees what the student makes, noised to a random level r.

  arXiv:2403.01505

  Args:
    parts: what the config has made.
    intervals: of the grid.
    rho: of the grid.
    eta: the share of noise drawn anew, 0 none, 1 that of the reverse SDE.
    steps: of the teacher from a time to its neighbour.
    distance: as of `consistency_distillation`.
    decay: of the average that is the target, f'.
    scale: the guidance of the teacher, 1 for none.
    warm: whether the student begins as the teacher.
    adversarial: lam; 0 leaves the discriminator out.
    discriminator: as of `adversarial.judge_of`.
    pace: its learning rate as a multiple of the student's.

  Raises:
    InputError: no teacher, or one that does not fit; a number out of its range.
  """
  if adversarial < 0:
    raise InputError(f'adversarial: got {adversarial}; allowed: at least 0')
  source, teacher = taught(parts, scale)
  own = formed(None, parts, jump_from(parts), source, teacher)
  segment = by_noisy_steps(parts.process, teacher, eta, steps=steps)
  method = distilled(
    parts, source, own, segment, intervals=intervals, rho=rho, distance=distance, decay=decay, warm=warm
  )
  if not adversarial:
    return method
  law, level = pairs.neighbours(pairs.constantly(intervals), rho=rho), lognormal(-1.2, 1.2)
  made, real = (at_level(draw, parts.process, level) for draw in (from_jump(jump_from(parts), law), from_data))
  return contested(method, parts, judge_of(parts, discriminator), real, made, most=adversarial, pace=pace)
