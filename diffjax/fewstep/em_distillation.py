"""EM distillation: the forward divergence, whose samples of the generator's posterior come by Langevin steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.critics import Setting, setting
from diffjax.fewstep.direction import Loss, pull_back, ranks, rows
from diffjax.fewstep.rollouts import drawn_labels, one_step
from diffjax.methods.parts import Parts
from diffjax.process import expand
from diffjax.train.roles import Method

__all__ = ['em_distillation']


def em_distillation(
  parts: Parts,
  *,
  moves: int = 16,
  noise_step: float = 0.1,
  latent_step: float = 1e-3,
  level: float = 0.0,
  scale: float = 1.0,
  pace: float = 1.0,
) -> Method:
  """One step that covers the teacher's modes: maximum likelihood of noised samples by expectation-maximisation.

  p(x_t | z) = N(alpha G(z), sigma^2), z and eps = (x_t - alpha G(z)) / sigma of the joint law with the teacher's x_t:
      eps <- eps + a (sigma h - eps) + sqrt(2 a) n,      z <- z + b (alpha J^T h - z) + sqrt(2 b) n'
  `moves` times, h = s_teacher - s_psi at x_t = alpha G(z) + sigma eps, J = dG/dz; then G(z) moves by (sigma / alpha)
  (eps - ebar), where ebar went by the same steps and noise without h, so that the noise cancels. One move with b = 0 is
  a times the direction of `distribution_matching` without its divisor. Data are not read.   arXiv:2405.16852 Alg. 1-2

  Args:
    parts: with a teacher of this process.
    moves: K, Langevin steps.
    noise_step: a.
    latent_step: b.
    level: the time at which the student is asked; t_max unless positive.
    scale: of the teacher's guidance.
    pace: the critic's learning rate over the student's.

  Raises:
    InputError: no teacher, or one that does not fit; a number out of its range.
  """
  if moves < 1 or not 0 < noise_step < 1 or not 0 <= latent_step < 1:
    raise InputError(f'moves, noise_step, latent_step: got {moves}, {noise_step}, {latent_step}; allowed: at least 1, '
                     'between 0 and 1, and from 0 to below 1')  # fmt: skip
  own = setting(parts, levels=(level,) if level else (), scale=scale, pace=pace)
  return own.method((own.critic_phase(), own.student_phase(likely(own, moves, noise_step, latent_step))))


def likely(own: Setting, moves: int, noise_step: float, latent_step: float) -> Loss:
  """The student's loss of `em_distillation`; 'latent' in what is logged is |z|^2 / d, 1 of a chain that stays."""
  parts, process = own.parts, own.parts.process
  ask, label, times = one_step(parts, own.levels[0]), drawn_labels(parts, own.labels), ranks()

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    size = rows(batch)
    k_label, k_z, k_t, k_eps, k_moves = keys.split(keys.per_sample(key, size), 5)
    cond, t = label(k_label), times(process, k_t)
    z, eps = (keys.normal(k, parts.rows(size)) for k in (k_z, k_eps))
    begin = Chain(z, eps, eps)
    end = stop_gradient(chain(own, stop_gradient(roles), begin, t, cond, k_moves, (moves, noise_step, latent_step)))
    alpha, sigma = process.schedule(t)
    x = ask(roles['student'], end.z, cond)
    values = pull_back(x, expand(sigma / alpha, x) * (end.free - end.eps))
    over = tuple(range(1, x.ndim))
    return values, {'t': t, 'error': 2 * values, 'latent': jnp.mean(end.z**2, over)}

  return loss


class Chain(NamedTuple):
  """The latent, the noise, and the noise of the same steps without scores, like x each."""

  z: Array
  eps: Array
  free: Array


def chain(
  own: Setting, roles: Mapping[str, Any], begin: Chain, t: Array, cond: Cond, key_batch: KeyBatch, sizes: tuple
) -> Chain:
  """Langevin steps on (z, eps) of the joint law, by one vjp of the generator each."""
  moves, a, b = sizes
  process, ask = own.parts.process, one_step(own.parts, own.levels[0])
  alpha, sigma = (expand(c, begin.z) for c in process.schedule(t))

  def move(at: Chain, i: Array) -> tuple[Chain, None]:
    k_eps, k_z = keys.split(keys.fold(key_batch, i), 2)
    x, back = jax.vjp(lambda z: ask(roles['student'], z, cond), at.z)
    x_t = alpha * x + sigma * at.eps
    gap = own.teacher(roles)(x_t, t, cond).x0 - own.critic(roles)(x_t, t, cond).x0
    h = alpha / sigma**2 * gap
    noise = jnp.sqrt(2 * a) * keys.normal(k_eps, at.eps)
    eps = (1 - a) * at.eps + a * sigma * h + noise
    z = at.z + b * (back(alpha * h)[0] - at.z) + jnp.sqrt(2 * b) * keys.normal(k_z, at.z)
    return Chain(z, eps, (1 - a) * at.free + noise), None

  return jax.lax.scan(move, begin, jnp.arange(moves))[0]
