"""Adaptive solvers of the probability-flow ODE: the step follows an error estimate, so the evaluations vary.

They run in a `while_loop` beside `sample`. By default every sample has its own time and step, hence the result for a
sample does not depend on its batch; `batch_coupled` gives all of them one step, as published: from the error of the
whole batch as one vector (Dormand-Prince), or from the largest (DPM-Solver).

`control` has the rules of the step: the error in the data's units, and how far a step may go. The error of a sample is
a few tolerances, times what the flow stretches an error by after the step: nothing for a Gaussian, 50-fold for samples
between modes far apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import labels
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.noise_levels import at
from diffjax.prediction import Denoise
from diffjax.process import Process, expand
from diffjax.solvers import precision
from diffjax.solvers.control import Control, adapt, reach, unit_of

__all__ = ['Solution', 'dopri5', 'dpm_adaptive']

# Dormand and Prince 1980; ERROR is the fifth-order weights minus the fourth-order ones.
NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
STAGES = (
  (1 / 5, 0, 0, 0, 0, 0, 0),
  (3 / 40, 9 / 40, 0, 0, 0, 0, 0),
  (44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0),
  (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0),
  (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0),
  (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
# The fifth-order weights minus those of order three of the nodes 0, 3/10, 4/5: (7/72, 4/9, 11/24).
COARSE = (35 / 384 - 7 / 72, 0, 500 / 1113 - 4 / 9, 125 / 192 - 11 / 24, -2187 / 6784, 11 / 84, 0)
WITNESS = 0.3  # of |coarse|^{5/4}; where x' = x the two estimates are equal at .06


class Solution(NamedTuple):
  """What an adaptive solver returns: samples (B, ...), the evaluations each took (B,), and whether it reached the end.

  The network ran `nfe.max()` times on the whole batch; `nfe.mean()` is what the samples needed.
  """

  x: Array
  nfe: Array
  success: Array


def dopri5(
  denoise: Denoise,
  x: Array,
  cond: Cond = None,
  *,
  rtol: float = 1e-5,
  atol: float = 1e-5,
  end: float | None = None,
  batch_coupled: bool = False,
  max_steps: int = 1000,
  data_std: float = 1.0,
) -> Solution:
  """The adaptive Dormand-Prince method of orders 5 and 4 for the probability-flow ODE.

  dx/dt = alpha' x0 + sigma' eps from t_max to `end`.   arXiv:2011.13456 sec. 4.3

  A step is taken where the root mean square of error / (atol + rtol max |x|), x in the data's units, is at most 1; the
  next is clip(.9 error^{-1/5}, .2, 2) times as long. The error is the larger of the published estimate and one of lower
  order raised to its power, since one alone vanishes by chance. One evaluation to start, six an attempt.

  Args:
    denoise: what is asked for predictions.
    x: the start (B, ...), noise at the first time of the grid.
    cond: the condition of each sample, with the batch first.
    rtol: the error allowed to a step, relative to x and absolute, in the data's units.
    atol: see `rtol`.
    end: the last time; None is t_min of the process.
    batch_coupled: one step for the whole batch, as published.
    max_steps: attempts after which a sample is given up (`success` is False).
    data_std: the standard deviation of the data, which `atol` is measured against.

  Raises:
    InputError: end is outside [0, t_max), or a tolerance or data_std is not positive.
  """
  process = denoise.process
  end = float(process.t_min) if end is None else end
  if not 0 <= end < float(process.t_max):
    raise InputError(f'end: got {end}; allowed: from 0 to below {float(process.t_max):g}')
  span = end - float(process.t_max)
  labels.check_for(denoise, cond)
  return _dopri5(denoise, x, cond, _tolerances(rtol, atol, data_std), end, 0.01 * span, batch_coupled, max_steps)


def dpm_adaptive(
  denoise: Denoise,
  x: Array,
  cond: Cond = None,
  *,
  order: int = 3,
  rtol: float = 0.05,
  atol: float = 0.0078,
  end: float | None = None,
  batch_coupled: bool = False,
  max_steps: int = 1000,
  data_std: float = 1.0,
) -> Solution:
  """The adaptive DPM-Solver, which compares two orders and follows their difference.

  DPM-Solver-12 (order 2) or -23 (order 3): noise form in lam from t_max to `end`.   arXiv:2206.00927 app. C

  An attempt compares the step of order p with that of order p - 1, for p = 3 with both that its inner evaluations give;
  error / max(atol, rtol max(|low|, |low before|)), x in the data's units; the next step in lam is clip(.9 error^{-1/p},
  .2, 2) times as long. `order` evaluations an attempt. Arguments as of `dopri5`.

  Raises:
    InputError: order is not 2 or 3, lam is infinite at t_max or `end`, or a tolerance is not positive.
  """
  if order not in (2, 3):
    raise InputError(f'order: got {order!r}; allowed: 2 (DPM-Solver-12) or 3 (DPM-Solver-23)')
  process = denoise.process
  end = float(process.t_min) if end is None else end
  lam = at(process, [float(process.t_max), end])[2]
  if not np.isfinite(lam).all():
    raise InputError(f'end: got {end}, lam from {lam[0]:g} to {lam[1]:g}; allowed: a process and end of finite lam')
  labels.check_for(denoise, cond)
  return _dpm(denoise, x, cond, _tolerances(rtol, atol, data_std), lam[0], lam[1], order, batch_coupled, max_steps)


def _tolerances(rtol: float, atol: float, data_std: float) -> tuple[float, float, float]:
  if not (rtol > 0 and atol > 0 and data_std > 0):
    raise InputError(f'rtol, atol, data_std: got {rtol}, {atol}, {data_std}; allowed: positive numbers')
  return rtol, atol, data_std


def stages(slope: Callable, x: Array, t: Array, h: Array, k1: Array) -> tuple[Array, Array]:
  """Dormand and Prince's fifth-order point a step h (B,) on, and the slopes (x, t) -> dx/dt of the step, (7, B, ...).

  A loop: `slope`, with the network in it, is compiled once for the six that are asked.
  """
  step, rows = expand(h, x), jnp.asarray(STAGES, x.dtype)

  def one(carry: tuple[Array, Array], stage: tuple[Array, Array, Array]) -> tuple:
    slopes, _ = carry
    i, c, row = stage
    new = x + step * jnp.sum(row.reshape(-1, *[1] * x.ndim) * slopes, axis=0)
    return (slopes.at[i].set(slope(new, t + c * h)), new), None

  slopes = jnp.zeros((len(NODES), *x.shape), x.dtype).at[0].set(k1)
  stages = jnp.arange(1, len(NODES)), jnp.asarray(NODES[1:], x.dtype), rows
  (slopes, new), _ = jax.lax.scan(one, (slopes, x), stages)
  return new, slopes


def misses(slopes: Array, step: Array, unit: Any) -> Array:
  """The error of a step, the larger of two estimates of order five that do not vanish together; `unit` its scale."""

  def estimate(weights: tuple) -> Array:
    return jnp.abs(step * sum(w * k for w, k in zip(weights, slopes, strict=True)))

  return jnp.maximum(estimate(ERROR), WITNESS * unit * (estimate(COARSE) / unit) ** 1.25)


@partial(jax.jit, static_argnames=('coupled', 'max_steps'))
def _dopri5(denoise, x, cond, tolerances, end, first, coupled, max_steps):
  process: Process = denoise.process
  rtol, atol, data_std = tolerances
  denoise, given, x = precision.with_networks_in(denoise, x), x, precision.widened(x)

  def slope(x: Array, t: Array) -> Array:
    pred = precision.paired(denoise(x, t, cond), x)
    return process.velocity(pred.x0, pred.eps, t)

  def attempt(x: Array, t: Array, h: Array, k1: Array) -> tuple[Array, Array, Array]:
    new, slopes = stages(slope, x, t, h, k1)
    unit, after = (unit_of(process.schedule(time), data_std, x) for time in (t, t + h))
    size = jnp.maximum(jnp.abs(x / unit), jnp.abs(new / after))
    return new, misses(slopes, expand(h, x) / after, data_std) / (atol + rtol * size), slopes[-1]

  def farthest(t: Array) -> Array:
    return process.lam_inverse(reach(process.lam(t), data_std))

  together = (lambda error: jnp.sqrt(jnp.mean(error**2))) if coupled else None
  t = jnp.full(len(x), process.t_max, x.dtype)
  last, h = jnp.asarray(end, x.dtype), jnp.full_like(t, first)
  control = Control(5, farthest, together, max_steps)
  x, tries, success = adapt(attempt, x, slope(x, t), control, start=t, end=last, h=h)
  return Solution(precision.rounded(x, given), 1 + 6 * tries, success)


@partial(jax.jit, static_argnames=('order', 'coupled', 'max_steps'))
def _dpm(denoise, x, cond, tolerances, start, end, order, coupled, max_steps):
  process: Process = denoise.process
  rtol, atol, data_std = tolerances
  denoise, given, x = precision.with_networks_in(denoise, x), x, precision.widened(x)

  def attempt(x: Array, lam: Array, h: Array, before: Array) -> tuple[Array, Array, Array]:
    alpha_t = process.schedule(process.lam_inverse(lam))[0]

    def point(r: float, eps: Array, extra: Any = 0.0) -> tuple[Array, Array]:
      """The point at lam + r h and its time: (alpha / alpha_t) x - sigma (expm1(r h) eps + extra)."""
      t = process.lam_inverse(lam + r * h)
      alpha, sigma = process.schedule(t)
      return expand(alpha / alpha_t, x) * x - expand(sigma, x) * (expand(jnp.expm1(r * h), x) * eps + extra), t

    def noise(x: Array, t: Array) -> Array:
      return precision.paired(denoise(x, t, cond), x).eps

    eps = noise(x, process.lam_inverse(lam))
    if order == 2:
      low = point(1.0, eps)[0]
      middle = noise(*point(0.5, eps))
      high = point(1.0, eps, expand(jnp.expm1(h), x) * (middle - eps))[0]
    else:
      first = noise(*point(1 / 3, eps)) - eps
      low = point(1.0, eps, expand(jnp.expm1(h), x) * 1.5 * first)[0]
      second = noise(*point(2 / 3, eps, 2 * _rest(2 / 3 * h, x) * first)) - eps
      high = point(1.0, eps, 1.5 * _rest(h, x) * second)[0]
    error = jnp.abs(high - low)
    if order == 3:  # the second-order step by the other inner evaluation: the two errors do not vanish together
      error = jnp.maximum(error, jnp.abs(high - point(1.0, eps, expand(jnp.expm1(h), x) * 0.75 * second)[0]))
    unit = unit_of(process.schedule(process.lam_inverse(lam + h)), data_std, x)
    low = low / unit
    return high, error / unit / jnp.maximum(atol, rtol * jnp.maximum(jnp.abs(low), jnp.abs(before))), low

  lam = jnp.full(len(x), start, x.dtype)
  last, h = jnp.asarray(end, x.dtype), jnp.full_like(lam, 0.05)

  before = x / unit_of(process.schedule(process.lam_inverse(lam)), data_std, x)
  together = jnp.max if coupled else None
  control = Control(order, partial(reach, data_std=data_std), together, max_steps)
  x, tries, success = adapt(attempt, x, before, control, start=lam, end=last, h=h)
  return Solution(precision.rounded(x, given), order * tries, success)


def _rest(h: Array, x: Array) -> Array:
  """expm1(h) / h - 1, by its series where h is small."""
  return expand(jnp.where(jnp.abs(h) < 0.05, h / 2 + h**2 / 6 + h**3 / 24, jnp.expm1(h) / h - 1), x)
