"""The bridge of a process between data x0 and what they are paired with, y: x_t is y itself at t_max, and x0 at 0.

    x_t = a y + b x0 + c eps          the process given its two ends, rho = sigma / alpha, T = t_max:
    a = (alpha / alpha_T) rho^2 / rho_T^2,   b = alpha (1 - rho^2 / rho_T^2),   c = alpha rho sqrt(1 - rho^2 / rho_T^2)

Given y, x_t - a y = b x0 + c eps is a forward process of its own, with the schedule (b, c): `bridge`. In these shifted
points every step, jump and loss of a process is that of the bridge: DDIM is DBIM without noise,

    x_s = a_s y + (c_s / c_t) (x_t - a_t y) + (b_s - b_t c_s / c_t) x0.

arXiv:2309.16948 eq. 7, arXiv:2405.15885
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from diffjax.errors import InputError
from diffjax.process import Process

__all__ = ['bridge', 'coefficients', 'pull']

Schedule = Callable[[Array], tuple[Array, Array]]


def coefficients(process: Process, t: Any) -> tuple[Array, Array, Array]:
  """(a, b, c) at the times t of the bridge of a process."""
  t = jnp.asarray(t, float)
  return pull(process, t), *_between(process.schedule, process.t_max, t)


def pull(process: Process, t: Any) -> Array:
  """The share a of y in x_t, by which points are shifted: 0 at the data, 1 at t_max."""
  t = jnp.asarray(t, float)
  (alpha, sigma), (alpha_end, sigma_end) = process.schedule(t), process.schedule(process.t_max.astype(t.dtype))
  return alpha_end * sigma**2 / (alpha * sigma_end**2)


def _between(schedule: Schedule, end: Array, t: Array) -> tuple[Array, Array]:
  (alpha, sigma), (alpha_end, sigma_end) = schedule(t), schedule(jnp.asarray(end, t.dtype))
  rho, rho_end = sigma / alpha, sigma_end / alpha_end
  rest = (1 - rho / rho_end) * (1 + rho / rho_end)
  return alpha * rest, sigma * jnp.sqrt(jnp.maximum(rest, 0))


def _inverse(process: Process, lam: Array) -> Array:
  """The time with log(b / c) = lam, where 1 / rho^2 = 1 / rho_T^2 + e^{2 lam}."""
  last = process.lam(process.t_max)  # - log rho_T
  return process.lam_inverse(last + jax.nn.softplus(2 * (lam - last)) / 2)


def bridge(process: Process, gap: float = 1e-3) -> Process:
  """The process of x_t - a y: the schedule (b, c), from t_min to t_max - gap, since at t_max both are 0.

  Args:
    process: the reference, whose alpha(t_max) is positive.
    gap: how far from t_max it begins.

  Raises:
    InputError: a process whose alpha(t_max) is 0, or a gap that leaves nothing.
  """
  if not np.isfinite(float(process.lam(process.t_max))):
    raise InputError('process: got one whose alpha(t_max) is 0; allowed for a bridge: one that keeps a signal, such as '
                     'vp_linear or ve')  # fmt: skip
  if not 0 < gap < float(process.t_max - process.t_min):
    raise InputError(f'gap: got {gap}; allowed: a positive time, shorter than the process')
  schedule = Partial(_between, process.schedule, process.t_max)
  inverse = Partial(_inverse, process)
  return Process(schedule, process.t_min, process.t_max - gap, inverse, by_noise=process.by_noise)
