"""Score distillation: what a diffusion model knows of images moves the parameters of whatever draws one.

Let x be a view of an object and x_t = alpha x + sigma eps. An object's parameters go against J^T g, J the Jacobian of
the view, with

    SDS    g = w(t) (eps_teacher(x_t, t, y) - eps)                 to modes; far ones need a large scale of guidance
    VSD    g = w(t) (eps_teacher(x_t, t, y) - eps_critic(x_t, t))  the critic's law is that of the objects: samples
    CDS    g = eps_teacher(z_t) - eps_teacher(z_t')                z_t' one step along the teacher's flow, noise fixed

and data are not read.   arXiv:2209.14988, arXiv:2305.16213, arXiv:2401.09050
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import guidance, keys
from diffjax.contracts import KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.critics import setting
from diffjax.fewstep.direction import Field, matched, pull_back, rows
from diffjax.fewstep.flow_map import PROGRESS, progress
from diffjax.fewstep.scenes import Objects, Rendered, objects
from diffjax.fewstep.segments import taught
from diffjax.methods import Parts, Sampling
from diffjax.methods.starts import loads
from diffjax.prediction import Denoise
from diffjax.process import Process, expand
from diffjax.train.roles import Buffer, Method, Phase

__all__ = ['consistent_3d', 'score_distillation', 'variational_score_distillation']

Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]
WEIGHTS = dict(
  unit=lambda alpha, sigma: alpha / sigma,
  sigma2=lambda alpha, sigma: alpha * sigma,
  alpha_sigma2=lambda alpha, sigma: alpha**2 * sigma,
)
"""w alpha / sigma for w = 1, sigma^2 and alpha sigma^2: eps_a - eps_b is -(alpha / sigma) (D_a - D_b)."""


def score_distillation(
  parts: Parts,
  *,
  scene: Any = None,
  labels: Sequence[int] = (),
  scale: float = 1.0,
  span: tuple[float, float] = (0.02, 0.98),
  weight: str = 'sigma2',
) -> Method:
  """SDS: the parameters of a scene follow w(t) (eps_teacher(x_t, t, y) - eps), as if x were all of its own law.

  arXiv:2209.14988 eq. 3

  Args:
    parts: what the config has made; its network is not used.
    scene: what is optimised, a name or a dict of `scenes.objects`; particles unless given.
    labels: that the objects take in turn, y; all unless given.
    scale: the guidance of the teacher, 1 for none; the paper's 100.
    span: t is even between these shares of t_max.
    weight: w: sigma2, unit or alpha_sigma2.

  Raises:
    InputError: no teacher, or one that does not fit; a scene, labels or a number out of their range.
  """
  source, teacher = taught(parts, scale)
  made = objects(parts, scene or 'particles', labels)
  loss = _scored(parts, made, lambda roles, cond: [Field(1.0, teacher(roles), cond)], [span], 0.0, weight)
  return Method(
    (Phase('student', loss, parts.optimiser()),),
    init=lambda key: {'student': made.scene.init(key)},
    loads=loads(source),
    buffers={PROGRESS: progress()},
    generator=_drawn(parts, made),
  )


def variational_score_distillation(
  parts: Parts,
  *,
  scene: Any = None,
  labels: Sequence[int] = (),
  scale: float = 1.0,
  span: tuple[float, float] = (0.02, 0.98),
  late: tuple[float, float] = (0.02, 0.5),
  switch: float = 0.2,
  weight: str = 'sigma2',
  pace: float = 1.0,
) -> Method:
  """VSD: the parameters of a scene follow w(t) (eps_teacher(x_t, t, y) - eps_critic(x_t, t, y)).

  The critic denoises views of the objects, one step each step. Where it is exact this is the gradient flow of the
  divergence KL(views | teacher's) over noise levels, so that many objects become samples. A critic that begins as the
  teacher moves in all of its weights, where the paper trains a low-rank part, and it is not told the view.

  arXiv:2305.16213 Alg. 1

  Args:
    parts: what the config has made; its network is the critic's where the teacher is a closed form.
    scene: as of `score_distillation`, like those that follow.
    labels: that the objects take in turn.
    scale: of the teacher's guidance; the paper's 7.5.
    span: of t, as shares of t_max.
    late: the span after a share `switch` of the run.
    switch: see `late`.
    weight: w.
    pace: the critic's learning rate, as a multiple of the objects'.

  Raises:
    InputError: as of `score_distillation`, or a switch outside [0, 1].
  """
  own, made = setting(parts, scale=scale, pace=pace), objects(parts, scene or 'particles', labels)
  if not 0 <= switch <= 1:
    raise InputError(f'switch: got {switch}; allowed: a share of the run, 0 to 1')
  loss = _scored(parts, made, own.fields, [span, late], switch, weight)
  taught_critic = own.source.kind is not None

  def init(key: Array) -> dict[str, Any]:
    student = {'student': made.scene.init(key)}
    return student if taught_critic else {**student, 'critic': parts.init(jax.random.fold_in(key, 1))}

  return Method(
    (Phase('student', loss, parts.optimiser()), own.critic_phase(own.learned(made.seen))),
    copies={'critic': 'teacher'} if taught_critic else {},
    init=init,
    loads=loads(own.source),
    buffers={PROGRESS: progress()},
    fixed_length=True,
    generator=_drawn(parts, made),
  )


def consistent_3d(
  parts: Parts,
  *,
  scene: Any = None,
  labels: Sequence[int] = (),
  scales: tuple[float, float] = (1.0, 1.0),
  levels: tuple[float, float] = (0.68, 0.1),
  gap: tuple[float, float] = (0.1, 0.3),
  clips: tuple[float, float] = (2.0, 8.0),
) -> Method:
  """CDS: the parameters of a scene follow eps_teacher(z_t, t) - eps_teacher(z_t', t'), t' < t, under one fixed noise.

  With tau = sigma / alpha, z_t = x + tau eps* and z_t' = z_t + (tau' - tau) eps_teacher(z_t, t), a step of the flow;
  the network sees alpha z. eps* is drawn once an object. It is z_t that is led to a mode: x stays tau eps* beside it,
  so t' falls over the run, by the square root of its share, to `levels[1]`, which sets what is left of that. (To pull
  D(z_t) to D(z_t') as if their slope were 1 would have the other sign, and diverge.) The gradient is the curvature of
  the flow: it rests where that is straight, at a mode, but also midway between modes that it cannot tell apart.

  arXiv:2401.09050 Alg. 1

  Args:
    parts: what the config has made; its network is not used.
    scene: as of `score_distillation`.
    labels: that the objects take in turn.
    scales: the guidance of the teacher at the start and the end of the run; the paper's 100 to 50.
    levels: t' at the start and the end, as shares of t_max.
    gap: t - t' is even between these shares of t_max.
    clips: the most that an element of g may be, at the start and the end.

  Raises:
    InputError: no teacher, or one that does not fit; a scene, labels or a number out of their range.
  """
  source, teacher = taught(parts)
  made = objects(parts, scene or 'particles', labels)
  high, low = levels
  if not (0 < low <= high and 0 < gap[0] <= gap[1] and high + gap[1] < 1):
    raise InputError(f'levels, gap: got {levels}, {gap}; allowed: levels that do not rise, above 0, and a gap above 0, '
                     'the greatest time together below 1')  # fmt: skip
  if min(clips) <= 0:
    raise InputError(f'clips: got {clips}; allowed: two positive numbers')
  if set(scales) != {1.0} and not parts.classes:
    raise InputError(f'scales: got {scales}; allowed: 1, since the data have no labels')

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_which, k_view, k_t = keys.split(keys.per_sample(key, rows(batch)), 3)
    which, cond = made.chosen(k_which)
    x = widened(made.scene.render(roles['student'], which, k_view))
    done = jnp.clip(roles[PROGRESS] / parts.steps, 0, 1)
    last = jnp.full(len(x), high + (low - high) * jnp.sqrt(done)) * parts.process.t_max
    t = last + (gap[0] + (gap[1] - gap[0]) * keys.uniform(k_t)) * parts.process.t_max
    denoise = teacher(roles)
    if set(scales) != {1.0}:
      denoise = guidance.cfg(denoise, scales[0] + (scales[1] - scales[0]) * done)
    g = along(denoise, x, roles['noise'][which], t, last, cond)
    most = clips[0] + (clips[1] - clips[0]) * done
    values = pull_back(x, jnp.clip(g, -most, most))
    return values, {'t': t, 'error': 2 * values}

  def noise(key: Array) -> Array:
    return jax.random.normal(key, (made.scene.count, *parts.shape))

  return Method(
    (Phase('student', loss, parts.optimiser()),),
    init=lambda key: {'student': made.scene.init(key)},
    loads=loads(source),
    buffers={PROGRESS: progress(), 'noise': Buffer(noise, lambda roles, kept, batch, key: kept)},
    fixed_length=True,
    generator=_drawn(parts, made),
  )


def along(denoise: Denoise, x: Array, eps: Array, t: Array, s: Array, cond: Any = None) -> Array:
  """How the teacher's noise differs at z_t = x + tau_t eps and one Euler step nearer the data, eps(z_t) - eps(z_s).

  On N(0, v) it is z_t v (tau_t - tau_s) / ((v + tau_t^2) (v + tau_s^2)), of the sign of z_t; no gradient passes.
  """
  (alpha, sigma), (alpha_s, sigma_s) = denoise.process.schedule(t), denoise.process.schedule(s)
  tau, tau_s = sigma / alpha, sigma_s / alpha_s
  z = stop_gradient(x) + expand(tau, x) * eps
  first = denoise(expand(alpha, x) * z, t, cond).eps
  after = z + expand(tau_s - tau, x) * first
  return stop_gradient(first - denoise(expand(alpha_s, x) * after, s, cond).eps)


def _scored(
  parts: Parts, made: Objects, fields: Callable, spans: Sequence[tuple[float, float]], switch: float, weight: str
) -> Loss:
  """Objects follow the fields, t even on the first span and, after a share `switch` of the run, on the last."""
  if weight not in WEIGHTS:
    raise InputError(f'weight: got {weight!r}; allowed: {", ".join(WEIGHTS)}')
  for span in spans:
    if len(span) != 2 or not 0 < span[0] < span[1] < 1:
      raise InputError(f'span: got {span}; allowed: (low, high) with 0 < low < high < 1')

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    late = roles[PROGRESS] >= switch * parts.steps
    low, high = (jnp.where(late, last, first) for first, last in zip(spans[0], spans[-1], strict=True))

    def times(process: Process, key_batch: KeyBatch) -> Array:
      return (low + (high - low) * keys.uniform(key_batch)) * process.t_max

    values, aux = matched(made.seen, fields, parts.process, times, normalised=False)(roles, batch, key)
    return WEIGHTS[weight](*parts.process.schedule(aux['t'])) * values, aux

  return loss


def _drawn(parts: Parts, made: Objects) -> Callable[[Mapping[str, Any], Sampling], Rendered]:
  return lambda roles, sampling: Rendered(roles['student'], made, tuple(parts.shape))
