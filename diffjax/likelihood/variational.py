"""VDM: the exact variational bound as a loss, and a schedule that is learned to make it vary least.

gamma(t) = -2 lam(t), rising on [0, 1]: alpha^2 = sigmoid(-gamma), sigma^2 = sigmoid(gamma). The bound depends on gamma
by its two ends alone; the variance of its estimate at one random time depends on all of it, and is least where
gamma'(t) E |eps - eps_hat|^2 is the same at every t.

arXiv:2107.00630
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.errors import InputError
from diffjax.likelihood.bounds import Bound, continuous_bound
from diffjax.losses.denoising import Loss
from diffjax.losses.times import TimeLaw
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['elbo', 'schedule_of', 'schedule_params', 'schedule_variance']

SLIGHT = 1024  # the nonlinear part begins as so small a share of the linear one


class Monotone(PyTree):
  """The learned schedule t -> (alpha, sigma), its parameters leaves; see `schedule_params`."""

  params: dict[str, Array]

  def gamma(self, t: Array) -> Array:
    """-2 lam: from the first of `ends` to the second, rising along a net of positive weights."""
    low, high = self.params['ends']
    start, end = (self._shape(jnp.asarray(edge, jnp.result_type(t))) for edge in (0.0, 1.0))
    return low + (high - low) * (self._shape(t) - start) / (end - start)

  def _shape(self, t: Array) -> Array:
    p = self.params
    hidden = jnp.abs(p['steep']) * 2 * (t[..., None] - 0.5) + p['place']
    bent = jnp.sum(jnp.abs(p['height']) * (2 * jax.nn.sigmoid(hidden) - 1), axis=-1)
    return jnp.abs(p['slope']) * t + bent / SLIGHT

  def __call__(self, t: Array) -> tuple[Array, Array]:
    gamma = self.gamma(t)
    return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))


def schedule_params(key: Array, ends: tuple[float, float] = (-13.3, 5.0), width: int = 1024) -> dict[str, Array]:
  """Fresh parameters of a schedule that is nearly linear in gamma between these ends.

  Raises:
    InputError: ends that do not rise, or no width.
  """
  check_schedule(ends, width)
  k_place, k_steep, k_height = jax.random.split(key, 3)
  return {
    'ends': jnp.asarray(ends, jnp.float32),
    'slope': jnp.asarray(ends[1] - ends[0], jnp.float32),
    'place': jax.random.normal(k_place, (width,)),
    'steep': jax.random.normal(k_steep, (width,)),
    'height': jax.random.normal(k_height, (width,)),
  }


def check_schedule(ends: tuple[float, float], width: int) -> None:
  """Raises InputError as `schedule_params`."""
  if len(ends) != 2 or not ends[0] < ends[1]:
    raise InputError(f'ends: got {ends}; allowed: two rising numbers, gamma at the data and at the noise')
  if width < 1:
    raise InputError(f'width: got {width}; allowed: a whole number of at least 1')


def schedule_of(params: Mapping[str, Array]) -> Process:
  """The process of these parameters, on t in [0, 1]; networks are told -lam/4, so any process knows them as well."""
  return Process(Monotone(dict(params)), jnp.asarray(0.0), jnp.asarray(1.0), by_noise=True)


Denoised = Callable[[Mapping[str, Any], Process], Denoise]


def elbo(denoised: Denoised, *, times: TimeLaw | None = None, levels: int | None = None) -> Loss:
  """The exact variational bound in continuous time, in nats a dimension, one time an example.

  (prior + diffusion + reconstruction) / d; 'bits' in the second result is the same in bits.   arXiv:2107.00630 eq. 3

  Args:
    denoised: (roles, the process of roles['schedule']) -> the denoiser of roles['student'] under it.
    times: the law of t; None is uniform.
    levels: how many values a component of the data has, evenly on [-1, 1]; None where it is continuous.
  """

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    bound = _bound(denoised, roles, schedule_of(roles['schedule']), batch, key, times, levels)
    value = bound.total / batch['x'][0].size
    parts = {name: jnp.sum(getattr(bound, name).reshape(len(value), -1), -1) / batch['x'][0].size
             for name in ('prior', 'diffusion', 'reconstruction')}  # fmt: skip
    return value, {'bits': value / jnp.log(2), **parts}

  return loss


def schedule_variance(denoised: Denoised, *, times: TimeLaw | None = None, levels: int | None = None) -> Loss:
  """What a learned schedule minimises: its ends the bound, all between them the variance of the bound's estimate.

  Of role 'schedule'. The ends see bound / d, the interior (diffusion / d)^2, whose mean is the variance and a constant:
  the bound depends on the ends alone. Each is blind to the other.   arXiv:2107.00630 app. I.2; arguments as of `elbo`.
  """

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    params, d = roles['schedule'], batch['x'][0].size
    inner = {name: stop_gradient(leaf) for name, leaf in params.items()} | {'ends': params['ends']}
    outer = dict(params) | {'ends': stop_gradient(params['ends'])}
    bound = _bound(denoised, roles, schedule_of(inner), batch, key, times, levels).total / d
    spread = (_bound(denoised, roles, schedule_of(outer), batch, key, times, levels).diffusion[:, 0] / d) ** 2
    return bound + spread, {'spread': spread}

  return loss


def _bound(
  denoised: Denoised, roles: Any, process: Process, batch: dict[str, Any], key: Array, times: Any, levels: int | None
) -> Bound:
  key = keys.per_sample(key, len(batch['x']))
  denoise = denoised(roles, process)
  return continuous_bound(denoise, batch['x'], key, batch.get('cond'), samples=1, times=times, levels=levels)
