"""Score identity distillation: the Fisher divergence from the teacher's law, in a form whose critic may lag behind."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.critics import setting
from diffjax.fewstep.direction import Loss, Made, mean_size, ranks, rows
from diffjax.methods.parts import Parts
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.train.roles import Method

__all__ = ['identity', 'score_identity']

Asked = tuple[Denoise, Cond, Denoise, Cond, Any]
"""The teacher and its condition, the critic and its condition, and the weight of an example, a number or (B,)."""


def score_identity(
  parts: Parts, *, level: float = 0.0, scale: float = 1.0, alpha: float = 1.2, high: float = 0.8, pace: float = 1.0
) -> Method:
  """One step whose samples have the teacher's law, by a loss through both denoisers rather than a direction.

  With delta = D_teacher(x_t) - D_psi(x_t), x = G(z), x_t = alpha_t x + sigma_t eps,
      mean[ delta (D_teacher(x_t) - x - a delta) ] / sg mean |x - D_teacher(x_t)|,
  through x and the inputs of both, not their weights. With the perfect critic E[x | x_t] = D_psi, and at a = 0 its
  expectation is that of |delta|^2, the Fisher divergence up to the weight. Data are not read.   arXiv:2404.04057

  Args:
    parts: with a teacher of this process.
    level: the time at which the student is asked; t_max unless positive.
    scale: of the teacher's guidance.
    alpha: a, above .5; the paper's is 1.2.
    high: the rank on EDM's ladder up to which levels are drawn, evenly.
    pace: the critic's learning rate over the student's.

  Raises:
    InputError: no teacher, or one that does not fit; a number out of its range.
  """
  own = setting(parts, levels=(level,) if level else (), scale=scale, pace=pace)

  def asked(roles: Mapping[str, Any], cond: Cond, key_batch: Array) -> Asked:
    return own.teacher(roles), cond, own.critic(roles), cond, 1.0

  loss = identity(own.make, asked, parts.process, ranks(0.0, high), alpha)
  return own.method((own.critic_phase(), own.student_phase(loss)))


def identity(
  make: Made,
  asked: Callable[[Mapping[str, Any], Cond, Array], Asked],
  process: Process,
  times: Callable[[Process, Array], Array],
  alpha: float = 1.2,
  *,
  normalised: bool = True,
) -> Loss:
  """The loss of `score_identity`.

  Args:
    make: (the student's params, keys) -> (x, cond).
    asked: (roles, cond, keys) -> `Asked`.
    process: by which samples are noised.
    times: the law of t.
    alpha: a.
    normalised: whether an example's value is divided by mean |x - D_teacher(x_t)|.

  Raises:
    InputError: `alpha` is not positive.
  """
  if not alpha > 0:
    raise InputError(f'alpha: got {alpha}; allowed: a positive number, 1.2 in the paper')

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_make, k_asked, k_t, k_eps = keys.split(keys.per_sample(key, rows(batch)), 4)
    x, cond = make(roles['student'], k_make)
    frozen = {name: tree if name == 'student' else stop_gradient(tree) for name, tree in roles.items()}
    teacher, told, critic, known, weight = asked(frozen, cond, k_asked)
    x = widened(x)
    t = times(process, k_t)
    x_t = process.perturb(x, keys.normal(k_eps, x), t)
    real, fake = teacher(x_t, t, told).x0, critic(x_t, t, known).x0
    delta = real - fake
    over = tuple(range(1, x.ndim))
    values = jnp.mean(delta * (real - x - alpha * delta), over)
    if normalised:
      values = values / stop_gradient(mean_size(x - real))
    return weight * values, {'t': t, 'error': jax.lax.stop_gradient(jnp.mean(delta**2, over))}

  return loss
