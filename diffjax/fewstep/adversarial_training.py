"""Adversarial consistency training (FlashSpeech): iCT, and a discriminator from some step on."""

from typing import Any

from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.adversarial import from_data, judge_of
from diffjax.fewstep.consistency import improved_consistency_training
from diffjax.fewstep.contest import contested, from_jump
from diffjax.fewstep.jumps import jump_from
from diffjax.methods.parts import Parts
from diffjax.train.roles import Method

__all__ = ['adversarial_consistency_training']


def adversarial_consistency_training(
  parts: Parts,
  *,
  first: int = 10,
  last: int = 1280,
  rho: float = 7.0,
  distance: Any = None,
  normal: tuple[float, float] = (-1.1, 2.0),
  begins: float = 0.6,
  weight: tuple[float, float] = (0.01, 10.0),
  discriminator: Any = None,
  pace: float = 1.0,
) -> Method:
  """Adversarial consistency training: iCT, and after a share of the run the student's data are judged too.

      d_c(f(x_t, t), sg f(x_u, u)) / (t - u) + lam softplus(-D(f(x_t, t)))

  lam = |grad first| / |grad second| in the student's last layer, cut off. The discriminator is told the condition and
  learns from the first step. It is the student's network unless given, in place of heads on a speech model's features.

  arXiv:2404.14700 sec. 3.3

  Args:
    parts: what the config has made.
    first: the intervals of the grid at the first step.
    last: those at the last.
    rho: of the grid.
    distance: as of `improved_consistency_training`.
    normal: mean and deviation of log(sigma / alpha); () draws the intervals evenly.
    begins: the share of the run after which the second term is there.
    weight: the least and the most that lam may be.
    discriminator: as of `adversarial.judge_of`.
    pace: its learning rate as a multiple of the student's.

  Raises:
    InputError: a number out of its range.
  """
  least, most = weight
  if not (0 <= begins < 1 and 0 <= least <= most and most > 0):
    raise InputError(f'begins, weight: got {begins}, {weight}; allowed: 0 <= begins < 1, and 0 <= least <= most')
  method = improved_consistency_training(
    parts, first=first, last=last, rho=rho, distance=distance, normal=normal or None
  )
  law = pairs.neighbours(pairs.doubling(first, last, parts.steps), rho=rho, normal=normal or None)
  made, judge = from_jump(jump_from(parts), law), judge_of(parts, discriminator)
  start = round(begins * parts.steps)
  return contested(
    method, parts, judge, from_data, made, most=most, least=least, leaf='out', start=start, pace=pace
  )  # fmt: skip
