"""TAD-SR: one step from a coarse image to a fine one, in the details too, by a teacher that takes many."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, nets, solvers
from diffjax.contracts import Cond, KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep import distances
from diffjax.fewstep.adversarial import (
  Headed,
  Network,
  Shown,
  at_level,
  discriminator_loss,
  generator_loss,
  judge_of,
  paced,
)
from diffjax.fewstep.direction import pull_back, residual
from diffjax.fewstep.rollouts import over_levels
from diffjax.fewstep.segments import taught
from diffjax.losses import times
from diffjax.methods import Parts
from diffjax.methods.starts import beginning
from diffjax.prediction import Denoise
from diffjax.solvers import grids
from diffjax.train.roles import Method, Phase

__all__ = ['time_aware_super_resolution']


def time_aware_super_resolution(
  parts: Parts,
  *,
  steps: int = 15,
  small: float = 0.2,
  detail: float = 1.0,
  adversarial: float = 0.02,
  distance: Any = None,
  features: str = '',
  discriminator: Any = None,
  pace: float = 1.0,
) -> Method:
  """One step x = D_student(z, t_max, y) of a coarse y, for the y' that the teacher makes of the same z by many.

      d(x, y') + detail L(x, g) + adversarial softplus(-l(x_t, t, y)),
      g = (x - D_teacher(alpha x + sigma eps)) - (y' - D_teacher(alpha y' + sigma eps)),   t <= small t_max,

  L the pull-back of g, one noise for both. At small t a denoiser leaves all but the details as it finds them, so that g
  is of the details; it is 0 where x = y', and there score distillation alone, its first half, is not. The discriminator
  tells the data from x at any noise level, which it is told, as it is told y.

  arXiv:2408.07476 sec. 3

  Args:
    parts: of pairs, `config.loss.given` = ('source',), and a teacher that was trained so.
    steps: of the teacher, ddim on a grid even in t.
    small: the greatest t of g, as a share of t_max.
    detail: the weight of g; 0 leaves it out.
    adversarial: the weight of the discriminator's term; 0 leaves it out.
    distance: of `fewstep.distances`, l2 unless given.
    features: a tap of the teacher's network, on which the discriminator is then a head; '' for a network of its own.
    discriminator: of `adversarial.judge_of`, for a network of its own.
    pace: the discriminator's learning rate over the student's.

  Raises:
    InputError: data or a teacher without a source, a number out of its range, a tap that there is not.
  """
  if not parts.given:
    raise InputError("loss.given: got (); allowed: ('source',), of pairs of a coarse image and a fine one")
  if steps < 1 or not 0 < small < 1 or detail < 0 or adversarial < 0:
    raise InputError(f'steps, small, detail, adversarial: got {steps}, {small}, {detail}, {adversarial}; allowed: at '
                     'least 1, between 0 and 1, and at least 0')  # fmt: skip
  source, teacher = taught(parts)
  process, apart = parts.process, distances.named(distance or 'l2')
  solver = solvers.ddim(process, grids.uniform(process, steps))
  judge = _judge(parts, source, features, discriminator) if adversarial else None

  def begin(batch: Mapping[str, Any], key_batch: KeyBatch) -> tuple[Array, Cond]:
    like = jax.ShapeDtypeStruct((len(key_batch), *parts.shape), jnp.float32)
    told = {'label': batch.get('cond'), **{name: widened(batch[name]) for name in parts.given}}
    return process.start(key_batch, like, process.t_max), told

  def fine(roles: Mapping[str, Any], z: Array, cond: Cond) -> Array:
    return parts.denoiser(roles['student'])(z, process.t_max, cond).x0

  def student(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_begin, k_t, k_eps, k_judge = keys.split(keys.per_sample(key, len(batch['source'])), 4)
    z, cond = begin(batch, k_begin)
    x, denoise = fine(roles, z, cond), teacher(roles)
    other = stop_gradient(solvers.sample(denoise, solver, z, None, cond))
    values = error = apart(x, other)
    t = process.t_min + (small * process.t_max - process.t_min) * keys.uniform(k_t)
    if detail:
      values += detail * pull_back(x, details(denoise, x, other, keys.normal(k_eps, x), t, cond))
    if judge is not None:
      shown = at_level(lambda *_: Shown(x, 0 * t, cond), process, times.uniform())
      values += adversarial * generator_loss(judge, shown)(roles, {'x': x}, k_judge)[0]
    return values, {'t': t, 'error': error}

  def made(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    z, cond = begin(batch, key_batch)
    return Shown(fine(roles, z, cond), jnp.zeros(len(z)), cond)

  def real(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    x = widened(batch['x'])
    return Shown(x, jnp.zeros(len(x)), begin(batch, key_batch)[1])

  phases, starts = [Phase('student', student, parts.optimiser())], beginning(parts, source)
  if judge is not None:
    told_apart = discriminator_loss(judge, *(at_level(draw, process, times.uniform()) for draw in (real, made)))
    phases.append(Phase('discriminator', told_apart, paced(parts, pace)))
    fresh = starts['init']
    starts['init'] = lambda key: {**fresh(key), 'discriminator': judge.init(jax.random.fold_in(key, 1))}
  return Method(
    tuple(phases), **starts, needs=parts.given, conditions=parts.given,
    generator=over_levels(parts, (float(process.t_max),)),
  )  # fmt: skip


def details(denoise: Denoise, x: Array, other: Array, eps: Array, t: Array, cond: Cond = None) -> Array:
  """How the residuals of x and of another differ under one noise; zero where x is the other, and no gradient passes.

  For a Gaussian of covariance S it is sigma^2 (alpha^2 S + sigma^2)^-1 (x - other), whatever the noise.
  """
  return residual(denoise, x, eps, t, cond) - residual(denoise, other, eps, t, cond)


def _judge(parts: Parts, source: Any, features: str, spec: Any) -> Network | Headed:
  """A network told the time and the source, or a head on a feature of the teacher, which is."""
  if not features:
    return judge_of(parts, spec)
  if source.net is None or features not in source.net.tap_names(*parts.inputs(1)):
    names = '' if source.net is None else ', '.join(source.net.tap_names(*parts.inputs(1)))
    raise InputError(f'features: got {features!r} of {source.name}; allowed: one of its taps, {names or "none"}')
  trunk = dataclasses.replace(source.net, taps=(features,))
  return Headed(trunk, nets.mlp(width=64, depth=1, out_channels=1), parts.process, source.kind, parts.inputs(1))
