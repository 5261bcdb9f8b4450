"""Score matching without a target: the denoising loss by parts, which asks for the slope of what the network says."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

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

__all__ = ['implicit', 'sliced']


def implicit(
  process: Process,
  net: Net,
  kind: str | Kind = 'eps',
  *,
  times: TimeLaw | None = None,
  weight: Callable | None = None,
  drop_cond: float = 0.0,
  null: Cond = None,
  role: str = 'student',
) -> Loss:
  """Implicit score matching at every noise level: the size of the score and its divergence, without a target.

      E w(t) (|eps|^2 - 2 sigma div eps) / d at x_t,     eps = -sigma score:  |s|^2 / 2 + div s, times 2 sigma^2

  With the weights of the kind's own squared error, as `denoising` has them, it is that loss less a constant: of the
  same expected gradient. The divergence is exact, a jvp a dimension.

  arXiv:1905.07088 eq. 4 (Hyvarinen 2005), arXiv:2011.13456

  Args:
    process: the forward process.
    net: the network, (params, x, t, cond, key) -> out.
    kind: what the network's output means.
    times: the law of t; None is uniform on [t_min, t_max].
    weight: `diffjax.losses.weights`; None is 1.
    drop_cond: as of `denoising`.
    null: as of `denoising`.
    role: whose parameters the network has.

  Raises:
    InputError: an unknown kind, or as `denoising`.
  """
  return _matching(process, net, kind, ('exact', 1), times, weight, drop_cond, null, role)


def sliced(
  process: Process,
  net: Net,
  kind: str | Kind = 'eps',
  *,
  probe: str = 'rademacher',
  slices: int = 1,
  times: TimeLaw | None = None,
  weight: Callable | None = None,
  drop_cond: float = 0.0,
  null: Cond = None,
  role: str = 'student',
) -> Loss:
  """Sliced score matching at every noise level: `implicit` with its divergence by random probes.

  E w(t) (|eps|^2 - 2 sigma v . (d eps / dx) v) / d, in the form of less variance.   arXiv:1905.07088 eq. 8

  Args:
    process: the forward process.
    net: the network.
    kind: what its output means.
    probe: 'rademacher' or 'gaussian'.
    slices: probes an example.
    times: as of `implicit`, like what follows.
    weight: see there.
    drop_cond: see there.
    null: see there.
    role: see there.

  Raises:
    InputError: another probe, fewer than one slice, or as `implicit`.
  """
  if probe not in ('rademacher', 'gaussian'):
    raise InputError(f'probe: got {probe!r}; allowed: rademacher, gaussian')
  if slices < 1:
    raise InputError(f'slices: got {slices}; allowed: a whole number of at least 1')
  return _matching(process, net, kind, (probe, slices), times, weight, drop_cond, null, role)


def _matching(
  process: Process,
  net: Net,
  kind: str | Kind,
  trace: tuple[str, int],
  times: TimeLaw | None,
  weight: Callable | None,
  drop_cond: float,
  null: Cond,
  role: str,
) -> Loss:
  kind, times, weight = as_kind(kind), times or uniform(), weight or unit()
  check_drop(drop_cond, null)

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    begin = started(process, times, batch, key, drop_cond, null)
    x = widened(process.perturb(begin.x0, begin.eps, begin.t))

    def noise(flat: Array) -> tuple[Array, tuple]:
      at = flat.reshape(x.shape)
      out = apply_net(net, roles[role], process, kind, at, begin.t, cond=begin.cond, key=begin.key)
      eps = predict(process, kind, at, begin.t, widened(out)).eps
      return eps.reshape(flat.shape), ()

    flat = x.reshape(len(x), -1)
    probes = traces.drawn(*trace, keys.fold(begin.key, 1), flat)
    (eps, _), divergence = traces.with_trace(trace[0], noise, flat, probes)
    sigma = process.schedule(begin.t)[1]
    error = (jnp.sum(eps**2, axis=-1) - 2 * sigma * divergence) / flat.shape[1]
    # errors of the output are those of eps divided by the last coefficient of its form
    scale = weight(process, kind, begin.t, times.density(process, begin.t)) / kind(process, begin.t).eps[1] ** 2
    return scale * error, {'t': begin.t, 'error': error}

  return loss
