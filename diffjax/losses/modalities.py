"""The denoising loss of several modalities, each noisy to a time of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.kinds import Kind, as_kind
from diffjax.losses.denoising import Loss, mean_square
from diffjax.losses.times import TimeLaw, uniform
from diffjax.losses.weights import unit
from diffjax.prediction import Net, apply_net, target
from diffjax.process import Process, expand

__all__ = ['modalities']


def modalities(
  process: Process,
  net: Net,
  kind: str | Kind = 'v',
  times: TimeLaw | None = None,
  weight: Callable | None = None,
  ends: float = 0.05,
  *,
  role: str = 'student',
) -> Loss:
  """The denoising loss of several modalities, each noised to a time of its own.

  E sum_m w(t^m) mean |out^m - target(x^m, eps^m, t^m)|^2, the times t^m independent.   arXiv:2303.06555 eq. 5

  The loss takes (roles, batch, key) as `denoising` does, batch['x'] being a dict of modalities. Each modality counts by
  its mean over its own dimensions, whatever their number (the paper sums over dimensions). A part of the draws lies on
  the ends of time, where the modes of `guidance.modes` ask the network: t^m = 0, the modality is given clean and its
  own output is not judged, and t^m = t_max. The second result holds 'error_NAME' of each modality, (B,).

  Args:
    process: the forward process.
    net: the network, (params, x, t, cond, key) -> out.
    kind: what the network's outputs mean.
    times: the law of each t^m inside; None is uniform on [t_min, t_max].
    weight: (process, kind, t, density) -> (B,), `diffjax.losses.weights`; None is 1.
    ends: the probability of t^m = 0, and that of t^m = t_max.
    role: whose parameters the network has.

  Raises:
    InputError: an unknown kind, a probability outside [0, 1/2], or a process or kind whose networks are
      told the log of the noise.
  """
  kind, times, weight = as_kind(kind), times or uniform(), weight or unit()
  if not 0 <= ends <= 0.5:
    raise InputError(f'ends: got {ends}; allowed: a probability in [0, 1/2]')
  if kind.timed and (kind.by_noise or process.by_noise):
    raise InputError('process, kind: got one of which networks are told the log of the noise, infinite where a '
                     'modality is given clean; allowed: those timed by t, such as cosine or flow with v')  # fmt: skip

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    x0 = jax.tree.map(widened, batch['x'])
    key = keys.per_sample(key, jax.tree.leaves(x0)[0].shape[0])
    k_t, k_eps, k_net = keys.split(key, 3)
    eps = keys.normal(k_eps, x0)
    x, t, inside = {}, {}, {}
    for i, name in enumerate(sorted(x0)):
      k_in, k_end = keys.split(keys.fold(k_t, i), 2)
      end = keys.uniform(k_end)
      inside[name] = jnp.where(end > 1 - ends, process.t_max, times(process, k_in))
      t[name] = jnp.where(end < ends, 0, inside[name])
      noisy = process.perturb(x0[name], eps[name], inside[name])
      x[name] = jax.tree.map(partial(_where, end < ends), x0[name], noisy)
    out = apply_net(net, roles[role], process, kind, x, t, cond=batch.get('cond'), key=k_net)
    total, aux = jnp.zeros(()), {}
    for name, at in inside.items():  # rates and goals may be infinite at t = 0: a time inside stands for it, unjudged
      error = mean_square(out[name], target(process, kind, x0[name], eps[name], at))
      error = aux['error_' + name] = jnp.where(t[name] == 0, 0, error)
      total += weight(process, kind, at, times.density(process, at)) * error
    return total, aux

  return loss


def _where(condition: Array, a: Array, b: Array) -> Array:
  return jnp.where(expand(condition, a), a, b)
