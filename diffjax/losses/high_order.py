"""Denoising score matching of orders one to three: the score, its Jacobian, and the gradient of its trace.

The density of a probability-flow ODE depends on all three, so matching the score alone does not bound its likelihood.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import divergence as traces
from diffjax import keys
from diffjax.contracts import Cond
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.kinds import Kind, as_kind
from diffjax.losses.denoising import Loss, check_drop, started
from diffjax.losses.times import TimeLaw, uniform
from diffjax.losses.weights import unit
from diffjax.prediction import Net, apply_net, predict
from diffjax.process import Process

__all__ = ['high_order']


def high_order(
  process: Process,
  net: Net,
  kind: str | Kind = 'eps',
  *,
  order: int = 3,
  second: float = 1.0,
  third: float = 1.0,
  probe: str = 'rademacher',
  times: TimeLaw | None = None,
  weight: Callable | None = None,
  drop_cond: float = 0.0,
  null: Cond = None,
  role: str = 'student',
) -> Loss:
  """Denoising score matching of the score and its first and second derivatives.

      l = eps - sg eps_hat,   H = sigma^2 grad score = -sigma d eps_hat / dx
      J1 = |eps - eps_hat|^2
      J2 = |H + I - l l^T|^2 + |tr H + d - |l|^2|^2
      J3 = |sigma grad tr H + |l|^2 l - (sg tr H + d) l - 2 (sg H + I) l|^2
      w(t) (J1 + second J2 + third J3) / d

  Where lower orders are matched each is least at the truth. With a Rademacher probe v an example H is replaced by H v
  and tr H by v . H v, as a step costs then a jvp (order 2) or its gradient (order 3), whatever the dimension. Networks
  must be smooth.

  arXiv:2206.08265 eq. 11-14 and app. E

  Args:
    process: the forward process.
    net: the network, (params, x, t, cond, key) -> out.
    kind: what the network's output means.
    order: 1, 2 or 3.
    second: the weight of J2.
    third: the weight of J3.
    probe: 'rademacher', or 'exact' in few dimensions.
    times: the law of t; None is uniform on [t_min, t_max].
    weight: of the kind's own squared error, `diffjax.losses.weights`; None is 1.
    drop_cond: as of `denoising`.
    null: as of `denoising`.
    role: whose parameters the network has.

  Raises:
    InputError: another order or probe, a negative weight, an unknown kind, or as `denoising`.
  """
  kind, times, weight = as_kind(kind), times or uniform(), weight or unit()
  check_drop(drop_cond, null)
  if order not in (1, 2, 3):
    raise InputError(f'order: got {order}; allowed: 1, 2, 3')
  if probe not in ('rademacher', 'exact'):
    raise InputError(f'probe: got {probe!r}; allowed: rademacher, exact')
  if second < 0 or third < 0:
    raise InputError(f'second, third: got {second}, {third}; allowed: numbers of at least 0')

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    begin = started(process, times, batch, key, drop_cond, null)
    x = widened(process.perturb(begin.x0, begin.eps, begin.t))
    flat, eps = x.reshape(len(x), -1), begin.eps.reshape(len(x), -1)
    d, sigma = flat.shape[1], process.schedule(begin.t)[1][:, None]

    def noise(flat: Array) -> Array:
      at = flat.reshape(x.shape)
      out = apply_net(net, roles[role], process, kind, at, begin.t, cond=begin.cond, key=begin.key)
      return predict(process, kind, at, begin.t, widened(out)).eps.reshape(flat.shape)

    v = traces.drawn(probe, 1, keys.fold(begin.key, 1), flat)
    directions = jnp.broadcast_to(jnp.eye(d, dtype=flat.dtype)[:, None], (d, *flat.shape)) if probe == 'exact' else v
    seen, slope = _slopes(noise, flat, sigma, directions, order)
    errors = _errors(eps, seen, sigma, directions, slope)
    total = errors[0] + second * errors[1] + third * errors[2]
    scale = weight(process, kind, begin.t, times.density(process, begin.t)) / kind(process, begin.t).eps[1] ** 2
    named = {f'order{i + 1}': error / d for i, error in enumerate(errors[:order])}
    return scale * total / d, {'t': begin.t, 'error': errors[0] / d, **named}

  return loss


def _slopes(
  noise: Callable[[Array], Array], x: Array, sigma: Array, directions: Array, order: int
) -> tuple[tuple[Array, Array | None, Array | None], Array | None]:
  """eps_hat (B, d), H along the directions (k, B, d), the sum of v . H v (B,), and the gradient of that sum (B, d)."""
  if order == 1:
    return (noise(x), None, None), None

  def along(x: Array) -> tuple[Array, tuple]:
    out, push = jax.linearize(noise, x)
    pushed = -sigma * jax.vmap(push)(directions)
    trace = jnp.sum(directions * pushed, (0, 2))
    return jnp.sum(trace), (out, pushed, trace)

  if order == 2:
    return along(x)[1], None
  slope, seen = jax.grad(along, has_aux=True)(x)
  return seen, slope


def _errors(
  eps: Array, seen: tuple[Array, Array | None, Array | None], sigma: Array, v: Array, slope: Array | None
) -> list[Array]:
  """J1, J2 and J3 of each example (B,); those that were not asked for are 0."""
  out, pushed, trace = seen
  square = lambda a: jnp.sum(a**2, axis=-1)  # noqa: E731
  left = eps - stop_gradient(out)
  errors = [square(eps - out)]
  if pushed is not None and trace is not None:
    on = jnp.sum(v * left, -1, keepdims=True)  # v . l
    count = jnp.sum(v**2, (0, 2))  # d, exact or by the probe
    errors.append(jnp.sum(square(pushed + v - on * left), 0) + (trace + count - jnp.sum(on[..., 0] ** 2, 0)) ** 2)
    if slope is not None:
      size = jnp.sum(on**2, 0)  # |l|^2, exact or by the probe
      rest = (stop_gradient(trace) + count)[:, None] * left
      turned = jnp.sum(on * (stop_gradient(pushed) + v), 0)  # (H + I) l
      errors.append(square(sigma * slope + size * left - rest - 2 * turned))
  return errors + [jnp.zeros_like(errors[0])] * (3 - len(errors))
