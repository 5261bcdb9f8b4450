"""Losses of the heads that learn moments of the noise, for SN-DPM, NPR-DPM and GMS."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.guidance.moment_heads import blocks, checked_names
from diffjax.kinds import Kind, as_kind
from diffjax.losses.denoising import Loss, mean_square
from diffjax.losses.times import TimeLaw, uniform
from diffjax.prediction import Denoise, Net, apply_net
from diffjax.process import Process

__all__ = ['moments']


def moments(
  process: Process,
  net: Net,
  names: tuple[str, ...] = ('eps2',),
  base: Denoise | None = None,
  kind: str | Kind = 'eps',
  times: TimeLaw | None = None,
  *,
  role: str = 'student',
) -> Loss:
  """The loss of a head that learns moments of the noise beside a trained network.

  E sum over names of mean |net(x_t, t)[name] - target|^2, one value an example.   arXiv:2206.07309, arXiv:2311.00941

      'eps2'        eps^2                     its minimiser is E[eps^2 | x_t]: SN-DPM, GMS
      'eps3'        eps^3                     GMS
      'residual2'   (eps - eps_hat)^2         NPR-DPM; eps_hat of `base`, through which no gradient flows

  The loss takes (roles, batch, key): roles[role] the parameters of the head, batch['x'] (B, ...), batch['cond'] if
  there are conditions. Values are float32 or wider. The second result holds the times 't', the summed 'error' and each
  name's own, (B,) each. `diffjax.guidance.moment_heads.with_moments` puts the trained head beside its denoiser.

  The first two need no denoiser. For the third the parameters of `base` come from roles['teacher'] where there is such
  a role (a Phase moves only its own, so it stays frozen, is sharded and saved like any other, and is no constant of the
  compiled step); else `base` is used as it is.

  Args:
    process: the forward process.
    net: returns len(names) blocks of channels, in the order of `names`.
    names: the moments, in the order of the blocks of channels.
    base: the denoiser whose noise is looked at.
    kind: how the head is handed x and t; 'edm' scales them, all others do not.
    times: the law of t; None is uniform on [t_min, t_max].
    role: whose parameters the network has.

  Raises:
    InputError: a name that is no moment, none, or one twice; 'residual2' without a base; an unknown kind.
  """
  kind, times, names = as_kind(kind), times or uniform(), checked_names(names)
  if 'residual2' in names and base is None:
    raise InputError("base: got None with 'residual2' among names; allowed: the denoiser whose error it is")

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    x0 = jax.tree.map(widened, batch['x'])
    key = keys.per_sample(key, jax.tree.leaves(x0)[0].shape[0])
    k_t, k_eps, k_net = keys.split(key, 3)
    t, cond = times(process, k_t), batch.get('cond')
    eps = keys.normal(k_eps, x0)
    x = process.perturb(x0, eps, t)
    told = blocks(names, apply_net(net, roles[role], process, kind, x, t, cond=cond, key=k_net), x)
    errors = {}
    for name in names:
      error = eps
      if name == 'residual2':
        hat = _frozen(base, roles)(x, t, cond).eps
        error = jax.tree.map(lambda e, h: e - jax.lax.stop_gradient(h), eps, hat)
      power = 3 if name == 'eps3' else 2
      errors[name] = mean_square(told[name], jax.tree.map(lambda e, p=power: e**p, error))
    total = jax.tree.reduce(jnp.add, list(errors.values()))
    return total, {'t': t, 'error': total, **errors}

  return loss


def _frozen(base: Any, roles: dict[str, Any]) -> Denoise:
  return base.replace(params=roles['teacher']) if 'teacher' in roles else base
