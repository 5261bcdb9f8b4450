"""EchoDistill: a one-step student and its teacher learn a concept from a few images, each from the other."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, solvers
from diffjax.contracts import KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.adversarial import Shown, at_level, discriminator_loss, generator_loss, judge_of, paced
from diffjax.fewstep.flow_map import PROGRESS, added, progress
from diffjax.fewstep.rollouts import over_levels
from diffjax.losses import times
from diffjax.losses.denoising import mean_square
from diffjax.methods import Parts, Sampling
from diffjax.methods.starts import same_network
from diffjax.prediction import apply_net, target
from diffjax.process import expand
from diffjax.pytree import PyTree
from diffjax.solvers import grids
from diffjax.train.roles import Buffer, Copy, Method, Phase

__all__ = ['echo_distillation']

Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]


def echo_distillation(
  parts: Parts,
  *,
  concept: int,
  images: int = 16,
  share: float = 0.5,
  real: float = 0.5,
  quiet: float = 0.5,
  steps: int = 8,
  adversarial: bool = True,
  every: int = 2,
  discriminator: Any = None,
  pace: float = 1.0,
) -> Method:
  """A label takes on the look of a few images, in a teacher of many steps and a student of one that are tuned together.

  On `share` of the rows the label is the concept, on the others another one, whose look is kept.

      teacher        denoising of the concept's images and, after the share `quiet` of the run and on 1 - real of the
                     rows, of what the student makes of it; on other labels it stays what it was, in output
      student        |x - y|^2, y where a few ddim steps of the teacher take the same z, + lam softplus(-l(x_t)) on the
                     concept; lam from the gradients in the last layer, .01 to 10
      discriminator  tells the images from the student's, noised

  The row of the label in the tables of both is one role, 'token', which moves by both losses. With students that are
  perfect the teacher's error falls as (1 - real)^k: at real = 0 it never learns.

  The weights are ours, and y is the teacher's way rather than its x0 at a noised x, by which a student would shrink
  to a mode.   arXiv:2510.20512 sec. 3

  Args:
    parts: of labelled data; the network is the teacher's, which begins as config.teacher, and the student's, which
      begins as config.base or, without one, as the teacher.
    concept: the label.
    images: of the concept, the first that the run meets; no others are looked at.
    share: of the rows that are of the concept.
    real: of the teacher's rows of the concept that are images, in the echo.
    quiet: the share of the run before the echo, in which all of them are.
    steps: of the teacher on the way to y.
    adversarial: whether there is a discriminator.
    every: the teacher moves at one step of so many.
    discriminator: of `adversarial.judge_of`.
    pace: the discriminator's learning rate over the student's.

  Raises:
    InputError: no teacher of this network, a label that there is not, a number out of its range.
  """
  process = parts.process
  for field in ('teacher',) if parts.base is None else ('teacher', 'base'):
    found = parts.source(field)
    if not same_network(parts, found):
      raise InputError(f'{field}: got {found.name}, a closed form or of another network or kind; allowed: a run of '
                       'config.net and config.loss.kind, whose weights are tuned')  # fmt: skip
  if not 0 <= concept < parts.classes or parts.classes < 2:
    raise InputError(f'concept: got {concept}; allowed: one of at least two labels, 0 to {parts.classes - 1}')
  if images < 1 or steps < 1 or not (0 < share < 1 and 0 <= real <= 1 and 0 <= quiet <= 1):
    raise InputError(f'images, steps, share, real, quiet: got {images}, {steps}, {share}, {real}, {quiet}; allowed: '
                     'at least 1, between 0 and 1, and 0 to 1')  # fmt: skip
  solver = solvers.ddim(process, grids.uniform(process, steps))
  others = jnp.asarray([label for label in range(parts.classes) if label != concept], jnp.int32)

  def asked(key_batch: KeyBatch) -> tuple[Array, Array]:
    """Labels (B,), and whether each is the concept."""
    k_which, k_other = keys.split(key_batch, 2)
    ours = keys.bernoulli(k_which, share)
    other = others[jnp.floor(keys.uniform(k_other) * len(others)).astype(int)]
    return jnp.where(ours, concept, other), ours

  def weights(roles: Mapping[str, Any], role: str) -> Params:
    return tokened(roles[role], concept, roles['token'])

  def noise(key_batch: KeyBatch) -> Array:
    return process.start(key_batch, parts.rows(len(key_batch)), process.t_max)

  def one_step(roles: Mapping[str, Any], z: Array, label: Array) -> Array:
    return parts.denoiser(weights(roles, 'student'))(z, process.t_max, label).x0

  def kept(roles: Mapping[str, Any], key_batch: KeyBatch) -> Array:
    held = roles['concept']
    return stop_gradient(held.x)[jnp.floor(keys.uniform(key_batch) * jnp.maximum(held.count, 1)).astype(int)]

  def of_teacher(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_label, k_z, k_image, k_real, k_t, k_eps = keys.split(keys.per_sample(key, len(batch['x'])), 6)
    label, ours = asked(k_label)
    echo = stop_gradient(one_step(roles, noise(k_z), label))
    loud = jnp.where(roles[PROGRESS] >= quiet * parts.steps, real, 1.0)
    x = jnp.where(expand(ours & keys.bernoulli(k_real, loud), echo), kept(roles, k_image), echo)
    t, eps = times.uniform()(process, k_t), keys.normal(k_eps, echo)
    x_t = process.perturb(x, eps, t)
    say = lambda params: apply_net(parts.net, params, process, parts.kind, x_t, t, cond=label)  # noqa: E731
    want = jnp.where(expand(ours, x), target(process, parts.kind, x, eps, t), say(roles['prior']))
    error = mean_square(say(weights(roles, 'teacher')), stop_gradient(want))
    return there(roles) * error, {'t': t, 'error': error}

  def aligned(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_label, k_z = keys.split(keys.per_sample(key, len(batch['x'])), 2)
    (label, _), z = asked(k_label), noise(k_z)
    by_teacher = parts.denoiser(stop_gradient(weights(roles, 'teacher')))
    error = mean_square(one_step(roles, z, label), stop_gradient(solvers.sample(by_teacher, solver, z, None, label)))
    return error, {'t': jnp.full(len(z), process.t_max), 'error': error}

  def made(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    label = jnp.full(len(key_batch), concept)
    return Shown(one_step(roles, noise(key_batch), label), jnp.zeros(len(key_batch)), label)

  def shown(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    label = jnp.full(len(key_batch), concept)
    return Shown(kept(roles, key_batch), jnp.zeros(len(key_batch)), label)

  of_student, phases, fresh = aligned, [], {}
  if adversarial:
    judge = judge_of(parts, discriminator)
    real_ones, made_ones = (at_level(draw, process, times.uniform()) for draw in (shown, made))
    of_student = added(aligned, generator_loss(judge, made_ones), name='adversarial', most=10.0, least=0.01, leaf='out')
    told_apart = discriminator_loss(judge, real_ones, made_ones)
    phases, fresh = [Phase('discriminator', told_apart, paced(parts, pace))], {'discriminator': judge.init}
  moved = [
    Phase('student', of_student, parts.optimiser()),
    Phase('teacher', of_teacher, parts.optimiser(max(parts.steps // every, 1)), every),
    Phase('token', both(of_teacher, aligned), parts.optimiser(max(parts.steps // every, 1)), every),
  ]
  begin = 'teacher' if parts.base is None else 'base'
  row = Copy('teacher', begins=lambda params: params['label']['table'][concept])
  return Method(
    (*moved, *phases),
    copies={'prior': 'teacher', 'student': begin, 'token': row},
    averaged=('student', 'token'),
    init=lambda key: {role: start(key) for role, start in fresh.items()},
    loads=('teacher',) if parts.base is None else ('teacher', 'base'),
    buffers={PROGRESS: progress(), 'concept': first_of(parts, concept, images)},
    fixed_length=True,
    generator=_drawn(parts, concept),
  )


class Kept(PyTree):
  """Images (n, ...) and how many of them are there."""

  x: Array
  count: Array


def first_of(parts: Parts, label: int, n: int) -> Buffer:
  """The first n examples of a label that the run meets; no others enter."""

  def init(key: Array) -> Kept:
    return Kept(parts.inputs(n)[0], jnp.zeros((), jnp.int32))

  def renew(roles: Mapping[str, Any], held: Kept, batch: Any, key: Array) -> Kept:
    ours = batch['cond'] == label
    place = jnp.where(ours, held.count + jnp.cumsum(ours) - 1, n)  # those beyond n are left out
    x = held.x.at[place].set(widened(batch['x']).astype(held.x.dtype), mode='drop')
    return Kept(x, jnp.minimum(held.count + jnp.sum(ours, dtype=jnp.int32), n))

  return Buffer(init, renew)


def there(roles: Mapping[str, Any]) -> Array:
  """1 where an image of the concept has been met, else 0."""
  return (roles['concept'].count > 0).astype(jnp.float32)


def tokened(params: Params, label: int, row: Array) -> Params:
  """Weights whose table of labels has this row for a label."""
  table = jnp.asarray(params['label']['table'])
  return {**params, 'label': {'table': table.at[label].set(row.astype(table.dtype))}}


def both(first: Loss, second: Loss) -> Loss:
  """The sum of two losses, of which the second draws from keys of its own."""

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    key = keys.per_sample(key, len(batch['x']))
    (one, aux), (two, _) = first(roles, batch, key), second(roles, batch, keys.fold(key, 1))
    return one + two, aux

  return loss


def _drawn(parts: Parts, concept: int) -> Callable:
  """The student's one evaluation, with the token of training in its table."""
  draw = over_levels(parts, (float(parts.process.t_max),))

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Any:
    return draw({**roles, 'student': tokened(roles['student'], concept, roles['token'])}, sampling)

  return generator
