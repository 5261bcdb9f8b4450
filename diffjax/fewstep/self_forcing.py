"""Self-Forcing: a causal student of clips is trained on what it makes itself, beyond its teacher's window too."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.causal import Unrolled, causal, windows
from diffjax.fewstep.critics import setting
from diffjax.fewstep.direction import matched
from diffjax.fewstep.rollouts import drawn_labels
from diffjax.methods import Parts, Sampling
from diffjax.methods.starts import loads
from diffjax.process import Process
from diffjax.train.roles import Method

__all__ = ['self_forcing']


def self_forcing(
  parts: Parts,
  *,
  frames: int = 0,
  block: int = 1,
  context: int = 2,
  levels: Sequence[float] = (),
  ratio: int = 5,
  pace: float = 1.0,
  shift: float = 1.0,
  span: tuple[float, float] = (0.02, 0.98),
  scale: float = 1.0,
  length: int = 0,
) -> Method:
  """Clips that a causal student makes from its own frames have, window by window, the law of a teacher of clips.

  Of each clip of `frames` frames a window of as many as the teacher knows, K, from a random place, goes along

      g = (D_critic - D_teacher)(x_t, t) / mean |x - D_teacher|,    x_t = alpha x + sigma eps, x the student's window.

  With frames = K this is Self-Forcing, with more Self-Forcing++: the student is corrected where only its own frames can
  lead. No data are read, and the teacher, which sees a window at once, is never asked for more than it knows.

  arXiv:2506.08009 Alg. 1, arXiv:2510.02283 sec. 3

  Args:
    parts: of clips (K, ..., C); the network is the student's, and the critic's where the teacher is a closed form.
    frames: of a clip in training; K unless given.
    block: frames made at a time, a divisor of K and of `frames`.
    context: frames that the student sees, the last of its own.
    levels: the times at which a block is asked, falling; t_max alone unless given.
    ratio: the critic's steps for one of the student.
    pace: the critic's learning rate over the student's.
    shift: t = shift u / (1 + (shift - 1) u) with u even on [0, 1], kept within `span`; the paper's 5.
    span: of t, as shares of t_max.
    scale: the guidance of the teacher, 1 for none.
    length: frames that are drawn; K unless given.

  Raises:
    InputError: no clips, no teacher or one that does not fit, or numbers that do not.
  """
  law, own = setting(parts, levels=levels, scale=scale, pace=pace), causal(parts, block, context)
  window = parts.shape[0]
  frames, length = frames or window, length or window
  if frames < window or frames % block or length % block or length < 1:
    raise InputError(f'frames, length: got {frames}, {length}; allowed: multiples of the block, {block}, and frames '
                     f'of at least the {window} of the teacher')  # fmt: skip
  if not shift > 0 or not 0 < span[0] < span[1] < 1:
    raise InputError(f'shift, span: got {shift}, {span}; allowed: above 0, and 0 < low < high < 1')
  make = windows(own, law.levels, frames, window, drawn_labels(parts))
  taught_critic = law.source.kind is not None

  def times(process: Process, key_batch: KeyBatch) -> Array:
    u = keys.uniform(key_batch)
    return jnp.clip(shift * u / (1 + (shift - 1) * u), *span) * process.t_max

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Unrolled:
    return Unrolled(own.denoiser(roles['student']), law.levels, length)

  def init(key: Array) -> dict[str, Any]:
    student = {'student': own.init(key)}
    return student if taught_critic else {**student, 'critic': parts.init(jax.random.fold_in(key, 1))}

  return Method(
    (
      law.critic_phase(law.learned(make)),
      law.student_phase(matched(make, law.fields, parts.process, times), ratio),
    ),
    copies={'critic': 'teacher'} if taught_critic else {},
    averaged=('student',),
    init=init,
    loads=loads(law.source),
    generator=generator,
  )
