"""Improved distribution matching: a critic that is faster than the student, a judge of real data, a few steps."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.adversarial import (
  Draw,
  Headed,
  Judge,
  Network,
  Shown,
  at_level,
  discriminator_loss,
  from_data,
  generator_loss,
  judge_of,
  paced,
)
from diffjax.fewstep.critics import Setting, setting
from diffjax.fewstep.direction import Loss, matched, ranks
from diffjax.fewstep.flow_map import PROGRESS, added, progress
from diffjax.fewstep.lessons import Lesson, matching, noised
from diffjax.methods.parts import Parts
from diffjax.train.roles import Method, Phase

__all__ = ['DIVERGENCES', 'distribution_matching_2']

DIVERGENCES: dict[str, Callable[[Array], Array]] = dict(
  reverse_kl=jnp.ones_like,
  forward_kl=lambda r: r,
  jensen_shannon=lambda r: 0.5 * r / (r + 1),
  hellinger=lambda r: 0.5 * jnp.sqrt(r),
)
"""h(r) = f''(r) r^2 of D_f(p | q) = E_q f(p / q), whose gradient in what is made is -h(r) (s_p - s_q) at r = p / q."""


def distribution_matching_2(
  parts: Parts,
  *,
  levels: tuple[float, ...] = (),
  every: int = 5,
  judging: float = 3e-3,
  critic_judging: float = 1e-2,
  discriminator: Any = None,
  feature: str = '',
  divergence: str = 'reverse_kl',
  labels: tuple[int, ...] = (),
  scale: float = 1.0,
  pace: float = 1.0,
  first: int = 0,
) -> Method:
  """Distribution matching on two time-scales, with a discriminator of noised data, of one step or several.

  The direction of `distribution_matching` without pairs; the critic moves at every step and the student at one in
  `every`. Beside it lam_G softplus(-l(x_t)), l the logit of a discriminator that tells noised data from what is made.
  A student of several levels is trained on the inputs it meets: what it made itself at the levels before, noised
  again. With judging=0 data are not read, and with every=1 too it is distribution matching.

  arXiv:2405.14867; other divergences arXiv:2502.15681

  Args:
    parts: with a teacher of this process.
    levels: the times at which the student is asked, falling; t_max alone unless given.
    every: steps of the critic for one of the student's.
    judging: lam_G; 0 for no discriminator.
    critic_judging: lam_D, the weight of the discriminator's loss in the critic's, where they share a trunk.
    discriminator: a network's name, or dict(name=..., **options); the student's architecture unless given, or with
      `feature` a small mlp. With `feature` it is the head on that.
    feature: the tap of the critic's network that is judged, '' for a discriminator of its own.
    divergence: of `DIVERGENCES`, its density ratio by the discriminator, normalised by the batch's mean and cut off at
      10; others than reverse_kl couple a batch.
    labels: those that the student is asked for; all unless given.
    scale: of the teacher's guidance.
    pace: the critic's and discriminator's learning rate over the student's.
    first: steps at the beginning in which the student learns the teacher's denoiser on noised data, for a student of
      another network than the teacher's.

  Raises:
    InputError: no teacher, or one that does not fit; a name or a number out of its range.
  """
  if divergence not in DIVERGENCES:
    raise InputError(f'divergence: got {divergence!r}; allowed: {", ".join(DIVERGENCES)}')
  if judging < 0 or critic_judging < 0 or (divergence != 'reverse_kl' and not judging):
    raise InputError(f'judging, critic_judging: got {judging}, {critic_judging}; allowed: at least 0, and a judging '
                     'above 0 with other divergences than reverse_kl')  # fmt: skip
  own = setting(parts, levels=levels, labels=labels, scale=scale, pace=pace)
  buffers = {PROGRESS: progress()} if first else {}
  if not judging:
    loss = begun(own, matched(own.make, own.fields, parts.process, ranks()), first)
    return own.method((own.critic_phase(), own.student_phase(loss, every)), buffers=buffers)

  judge = _judge(own, discriminator, feature)
  real, fake = at_level(from_data, parts.process, ranks(0.0, 1.0)), _made(own)
  told, critic = discriminator_loss(judge, real, fake), own.learned()
  if feature:
    shared = discriminator_loss(judge, real, fake, moves=('critic',))
    critic = added(critic, shared, name='judged', most=critic_judging)

  def also(roles: Mapping[str, Any], batch: Any, x: Array, cond: Cond, key_batch: KeyBatch) -> Array:
    shown: Draw = lambda *_: Shown(x, jnp.zeros(len(x), x.dtype), cond)  # noqa: E731
    loss = generator_loss(judge, at_level(shown, parts.process, ranks(0.0, 1.0)))
    return judging * loss(dict(roles), batch, key_batch)[0]

  weigh = None if divergence == 'reverse_kl' else ratio_weight(judge, DIVERGENCES[divergence])
  student = matched(own.make, own.fields, parts.process, ranks(), weigh=weigh, also=also)
  phases = (
    own.critic_phase(critic),
    Phase('discriminator', told, paced(parts, pace)),
    own.student_phase(begun(own, student, first), every),
  )
  return own.method(phases, init=lambda key: {'discriminator': judge.init(key)}, buffers=buffers)


def ratio_weight(judge: Judge, h: Callable[[Array], Array]) -> Callable[..., Array]:
  """(roles, x_t, t, cond) -> h(e^l) over its mean of the batch, at most 10, l the judge's logit."""

  def weigh(roles: Mapping[str, Any], x_t: Array, t: Array, cond: Cond) -> Array:
    value = h(jnp.exp(judge(roles, Shown(x_t, t, cond))))
    return jnp.minimum(value / jnp.mean(value), 10.0)

  return weigh


def begun(own: Setting, later: Loss, first: int) -> Loss:
  """A student's loss before which, for so many steps, it learns the teacher's denoiser on noised data.

  E (snr + 1) mean |D_student(x_t, t, c) - sg D_teacher(x_t, t, c)|^2, levels even in rank.   arXiv:2410.23274 sec. 4.2

  Raises:
    InputError: a negative number of steps.
  """
  if first < 0:
    raise InputError(f'first: got {first}; allowed: at least 0')
  process = own.parts.process

  def lesson(roles: dict[str, Any], batch: dict[str, Any], key_batch: KeyBatch) -> Lesson:
    k_t, k_eps = keys.split(key_batch, 2)
    t, cond = ranks(0.0, 1.0)(process, k_t), batch.get('cond')
    x = noised(process, batch, t, k_eps)
    return Lesson(x, t, cond, own.teacher(roles)(x, t, cond).x0)

  before = matching(own.parts, lesson, weight='snr_plus_one')

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    def told(of: Loss) -> tuple[Array, dict[str, Array]]:
      values, aux = of(roles, batch, key)
      return values, {name: aux[name] for name in ('t', 'error')}

    return jax.lax.cond(roles[PROGRESS] < first, lambda: told(before), lambda: told(later))

  return loss if first else later


def _judge(own: Setting, spec: Any, feature: str) -> Network | Headed:
  """A discriminator of its own, or a head on a feature of the critic."""
  parts, spec = own.parts, dict(name=spec) if isinstance(spec, str) else spec
  if not feature:
    return judge_of(parts, spec)
  net, kind = (parts.net, parts.kind) if own.source.kind is None else (own.source.net, own.source.kind)
  plain = dataclasses.replace(parts, classes=0)  # a head is told no label: the feature is
  head = judge_of(plain, spec or dict(name='mlp', width=64, depth=1)).net
  return Headed(dataclasses.replace(net, taps=(feature,)), head, parts.process, kind, parts.inputs(1), 'critic')  # type: ignore[type-var]


def _made(own: Setting) -> Draw:
  """What the student makes, noised, for the discriminator."""

  def draw(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    x, cond = stop_gradient(own.make(roles['student'], key_batch))
    return Shown(x, jnp.zeros(len(x), x.dtype), cond)

  return at_level(draw, own.parts.process, ranks(0.0, 1.0))
