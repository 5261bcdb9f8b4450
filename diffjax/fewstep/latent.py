"""Latent consistency: a guided teacher's flow in one jump, by a student told the scale; with a reward or none."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from diffjax import guidance, keys, rewards
from diffjax.contracts import Cond, Data, Params, Time
from diffjax.errors import InputError
from diffjax.fewstep import distances
from diffjax.fewstep.flow_map import Ends, ends
from diffjax.fewstep.guided import Scaled
from diffjax.fewstep.iterated import Iterated, iterated
from diffjax.fewstep.jumps import Jump, jump_from, latent_form
from diffjax.fewstep.pairs import skipping
from diffjax.fewstep.proxy import preference, proxy_net, value
from diffjax.fewstep.segments import by_solver, taught
from diffjax.methods import Parts, Sampling
from diffjax.methods.starts import fits, grafted, loads
from diffjax.nets import Apply
from diffjax.prediction import Pred
from diffjax.train.ema import constant
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['latent_consistency', 'reward_guided_latent_consistency']


def latent_consistency(
  parts: Parts,
  *,
  scales: tuple[float, float] = (1.0, 4.0),
  fine: int = 1000,
  skip: int = 20,
  distance: Any = None,
  decay: float = 0.95,
) -> Method:
  """Latent consistency distillation: one step of the guided teacher skips many of its own, and a jump agrees over it.

  On the grid of N fine steps, t = i k of it, u = max((i - 1) k, 1), and at a scale s of each example, even on `scales`,

      d(f(x_t, t, c, s), sg f'(x_u, u, c, s)),  x_u one DDIM step from x_t by  null + s (cond - null)
      f = c_skip x_t + c_out x0,  c_skip = sd^2 / (tau^2 + sd^2),  c_out = tau / sqrt(tau^2 + sd^2),  sd = .5

  with tau ten times the number of fine steps from the first of them, at which f is x itself. Scale 1 is the plain
  conditional model, the paper's w = 0. The student begins as its teacher where its network has that one's weights.

  arXiv:2310.04378 Alg. 1

  Args:
    parts: with labels, a network of two times, the second for the scale, and a teacher.
    scales: the least and the greatest scale.
    fine: N, the teacher's own steps.
    skip: k, how many of them a step of it takes.
    distance: the Huber distance of each dimension, c = .001, unless given; as of `consistency_distillation`.
    decay: of the average that is the target, f'.

  Raises:
    InputError: no labels, no teacher or one that does not fit, a network of one time, numbers out of their range.
  """
  return _latent(parts, scales, fine, skip, distance, decay)


def reward_guided_latent_consistency(
  parts: Parts,
  *,
  reward: Any,
  beta: float = 1.0,
  proxy: Any = None,
  scales: tuple[float, float] = (1.0, 4.0),
  fine: int = 1000,
  skip: int = 20,
  distance: Any = None,
  decay: float = 0.95,
) -> Method:
  """Reward-guided latent consistency distillation: what a jump leads to shall also be worth much.

      J = L - beta E R(f(x_t, t, c, s), c),  L of `latent_consistency`, which beta = 0 leaves

  With a `proxy` R is a network R_w that is trained beside the student to prefer as the reward does: for each two of
  {f, its target, the example}, the divergence from the reward's softmax over the two to the proxy's. Where a proxy is
  smoother than the reward, so is what the student learns of it.   arXiv:2403.11027

  Args:
    parts: as of `latent_consistency`.
    reward: of `diffjax.rewards`, a name or a dict of a name and its options.
    beta: the weight of the reward.
    proxy: the network of the proxy, a dict of a name of `nets` and its options; None for the reward itself, which then
      must have a gradient.
    scales: of `latent_consistency`, as are the next ones.
    fine: N.
    skip: k.
    distance: d.
    decay: of f'.

  Raises:
    InputError: as `latent_consistency`; a reward or network of another name, a negative beta.
  """
  if not beta >= 0:
    raise InputError(f'beta: got {beta}; allowed: a number of at least 0')
  worth = rewards.named(reward)
  net = proxy_net(parts, proxy) if proxy else None
  return _latent(parts, scales, fine, skip, distance, decay, beta=beta, worth=worth, proxy=net)


def _latent(
  parts: Parts, scales: Any, fine: int, skip: int, distance: Any, decay: float, beta: float = 0.0,
  worth: rewards.Reward | None = None, proxy: Apply | None = None,
) -> Method:  # fmt: skip
  source, _ = taught(parts)
  told, law = _told(parts, scales), skipping(fine, skip)
  known = float(parts.process.t_max) * np.arange(skip, fine + 1, skip) / fine
  jump = jump_from(told, form=latent_form(parts.process, fine), end=float(parts.process.t_max) / fine)
  far = distances.named(distance or 'huber')

  def teacher(roles: Mapping[str, Any]) -> Any:
    return _PerExample(source.denoiser(roles.get('teacher', ())))

  both = _at_scales(ends(jump, law, by_solver(parts.process, teacher, 'ddim')), scales)
  judge = worth and _judge(worth, proxy)

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    end = both(roles, batch, key)
    error = far(end.own, end.other)
    aux = {'t': end.at.t, 'error': error}
    if judge is None:
      return error, aux
    value = judge(roles, end.own, batch['cond'])
    return error - beta * value, aux | {'reward': value}

  shapes, begins_as = jax.eval_shape(parts.init, jax.random.key(0)), fits(parts, source)
  begins = {'student': Copy('teacher', begins=lambda params: grafted(shapes, params))} if begins_as else {}
  phases = [Phase('student', loss, parts.optimiser())]
  if proxy and worth:
    phases.append(Phase('proxy', preference(_three(both), worth, proxy), parts.optimiser()))

  def init(key: Array) -> dict[str, Params]:
    own = {} if begins_as else {'student': parts.init(key)}
    return own | ({'proxy': proxy.init(jax.random.fold_in(key, 1), *parts.inputs(1))} if proxy else {})

  return Method(
    phases=tuple(phases),
    copies={**begins, 'target': Copy('student', constant(decay))},
    init=init,
    loads=loads(source),
    generator=lambda roles, sampling: _drawing(told, jump, scales, known, roles, sampling),
  )


class ToldJump(Jump):
  """A jump whose network is told {'label', 'scale'}, at one scale."""

  scale: Array

  def out(self, params: Params, x: Array, t: Array, s: Array, cond: Cond = None, key: Any = None) -> Array:
    """As of `Jump`; cond are labels."""
    return super().out(params, x, t, s, {'label': cond, 'scale': self.scale}, key)


class _PerExample:
  """A teacher that is told {'label', 'scale'}: guided at the scale of each example."""

  def __init__(self, denoise: Any):
    self.denoise, self.process = denoise, denoise.process

  def __call__(self, x: Data, t: Time, cond: Any = None) -> Pred:
    return guidance.cfg(self.denoise, cond['scale'])(x, t, cond['label'])


def _told(parts: Parts, scales: Any) -> Parts:
  """The parts with a network that is told {'label', 'scale'}."""
  if not parts.classes:
    raise InputError('data.classes: got 0; allowed: labels, to be guided by')
  if getattr(getattr(parts.net, 'module', None), 'times', 1) != 2:
    raise InputError('net: got one that is told a single time; allowed: times=2, the second for the scale')
  if len(scales) != 2 or not scales[0] < scales[1]:
    raise InputError(f'scales: got {scales}; allowed: the least and a greater one')
  coarse = 1.0 if parts.process.by_noise or parts.kind.by_noise else 1000.0
  return dataclasses.replace(parts, net=Scaled(parts.net, (scales[0], scales[1]), coarse))


def _at_scales(both: Callable[..., Ends], scales: Any) -> Callable[..., Ends]:
  """`both` at a scale of each example, even on `scales`."""
  low, high = scales

  def told(roles: Mapping[str, Any], batch: Any, key: Array) -> Ends:
    own = keys.per_sample(key, len(batch['x']))
    scale = low + (high - low) * keys.uniform(keys.fold(own, 1))
    return both(roles, {**batch, 'cond': {'label': batch['cond'], 'scale': scale}}, own)

  return told


def _drawing(
  parts: Parts, jump: Jump, scales: Any, known: np.ndarray, roles: Mapping[str, Any], sampling: Sampling
) -> Iterated:
  if not scales[0] <= sampling.scale <= scales[1]:
    raise InputError(f'guidance_scale: got {sampling.scale:g}; allowed: {scales[0]:g} to {scales[1]:g}, which the '
                     'student was taught')  # fmt: skip
  at = ToldJump(
    jump.process, jump.kind, jump.form, jump.end, jnp.asarray(sampling.scale, float), net=jump.net, paired=jump.paired
  )
  return iterated(parts, at, roles['student'], dataclasses.replace(sampling, guided=lambda jump: jump), known=known)


def _three(both: Callable[..., Ends]) -> Callable[..., tuple[Array, ...]]:
  """What a proxy learns to compare: where the student's jump leads, its target and the example."""

  def shown(roles: Mapping[str, Any], batch: Any, key: Array) -> tuple[Array, ...]:
    end = both(roles, batch, key)
    return end.own, end.other, end.point.x0

  return shown


def _judge(worth: rewards.Reward, proxy: Apply | None) -> Callable[[Mapping[str, Any], Array, Cond], Array]:
  if proxy is None:
    return lambda roles, x, label: worth(x, label)
  return lambda roles, x, label: value(proxy, stop_gradient(roles['proxy']), x, label)
