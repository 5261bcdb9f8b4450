"""Adaptive solvers of the probability-flow ODE: the step follows an error estimate, so the evaluations vary.

They run in a `while_loop` beside `sample`. By default every sample has its own time and step, hence the result for a
sample does not depend on its batch; `batch_coupled` gives all of them one step, as published: from the error of the
whole batch as one vector (Dormand-Prince), or from the largest (DPM-Solver).
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

__all__ = ['Solution', 'dopri5', 'dpm_adaptive']

# Dormand and Prince 1980; the last line is the fifth-order weights minus the fourth-order ones
NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
STAGES = (
  (),
  (1 / 5,),
  (3 / 40, 9 / 40),
  (44 / 45, -56 / 15, 32 / 9),
  (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
  (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
  (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Solution(NamedTuple):
  """The samples x (B, ...), the evaluations each took (B,), and whether each success the end (B,).

  The network ran `nfe.max()` times on the whole batch; `nfe.mean()` is what the samples needed.
  """

  x: Array
  nfe: Array
  success: Array


def dopri5(
  denoise: Denoise,
  x: Array,
  cond: Cond = None,
  rtol: float = 1e-5,
  atol: float = 1e-5,
  end: float | None = None,
  batch_coupled: bool = False,
  max_steps: int = 1000,
) -> Solution:
  """The adaptive Dormand-Prince method of orders 5 and 4 for the probability-flow ODE.

  Dormand-Prince 5(4) for dx/dt = alpha' x0 + sigma' eps from t_max to `end`.   arXiv:2011.13456 sec. 4.3

  A step is taken where the root mean square of error / (atol + rtol max |x|) is at most 1; the next is
  clip(.9 error^{-1/5}, .2, 10) times as long. One evaluation to start, six an attempt.

  Args:
    denoise: what is asked for predictions.
    x: the start (B, ...), noise at the first time of the grid.
    cond: the condition of each sample, with the batch first.
    rtol: the relative tolerance.
    atol: the absolute tolerance.
    end: the last time; None is t_min of the process.
    batch_coupled: one step for the whole batch, as published.
    max_steps: attempts after which a sample is given up.
    limit: attempts after which a sample is given up (`success` is False).

  Raises:
    InputError: end is outside [0, t_max), or a tolerance is not positive.
  """
  process = denoise.process
  end = float(process.t_min) if end is None else end
  if not 0 <= end < float(process.t_max):
    raise InputError(f'end: got {end}; allowed: from 0 to below {float(process.t_max):g}')
  span = end - float(process.t_max)
  labels.check_for(denoise, cond)
  return _dopri5(denoise, x, cond, _tolerances(rtol, atol), end, 0.01 * span, batch_coupled, max_steps)


def dpm_adaptive(
  denoise: Denoise,
  x: Array,
  cond: Cond = None,
  order: int = 3,
  rtol: float = 0.05,
  atol: float = 0.0078,
  end: float | None = None,
  batch_coupled: bool = False,
  max_steps: int = 1000,
) -> Solution:
  """The adaptive DPM-Solver, which compares two orders and follows their difference.

  DPM-Solver-12 (order 2) or -23 (order 3): noise form in lam from t_max to `end`.   arXiv:2206.00927 app. C

  An attempt compares the steps of order p - 1 and p, which share evaluations; error / max(atol, rtol max(|low|, |low
  before|)); the next step in lam is .9 error^{-1/p} times as long. `order` evaluations an attempt.

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
  return _dpm(denoise, x, cond, _tolerances(rtol, atol), lam[0], lam[1], order, batch_coupled, max_steps)


def _tolerances(rtol: float, atol: float) -> tuple[float, float]:
  if not (rtol > 0 and atol > 0):
    raise InputError(f'rtol, atol: got {rtol}, {atol}; allowed: positive numbers')
  return rtol, atol


@partial(jax.jit, static_argnames=('coupled', 'max_steps'))
def _dopri5(denoise, x, cond, tolerances, end, first, coupled, max_steps):
  process: Process = denoise.process
  rtol, atol = tolerances

  def slope(x: Array, t: Array) -> Array:
    pred = denoise(x, t, cond)
    return process.velocity(pred.x0, pred.eps, t)

  def attempt(x: Array, t: Array, h: Array, k1: Array) -> tuple[Array, Array, Array]:
    step, slopes = expand(h, x), [k1]
    new = x
    for c, weights in zip(NODES[1:], STAGES[1:], strict=True):
      new = x + step * sum(w * k for w, k in zip(weights, slopes, strict=True))
      slopes.append(slope(new, t + c * h))
    error = step * sum(w * k for w, k in zip(ERROR, slopes, strict=True))
    return new, error / (atol + rtol * jnp.maximum(jnp.abs(x), jnp.abs(new))), slopes[-1]

  together = (lambda error: jnp.sqrt(jnp.mean(error**2))) if coupled else None
  t = jnp.full(len(x), process.t_max, x.dtype)
  last, h = jnp.asarray(end, x.dtype), jnp.full_like(t, first)
  x, tries, success = _adapt(attempt, x, t, last, h, slope(x, t), 5, (0.2, 10.0), together, max_steps)
  return Solution(x, 1 + 6 * tries, success)


@partial(jax.jit, static_argnames=('order', 'coupled', 'max_steps'))
def _dpm(denoise, x, cond, tolerances, start, end, order, coupled, max_steps):
  process: Process = denoise.process
  rtol, atol = tolerances

  def attempt(x: Array, lam: Array, h: Array, before: Array) -> tuple[Array, Array, Array]:
    alpha_t = process.schedule(process.lam_inverse(lam))[0]

    def reach(r: float, eps: Array, extra: Any = 0.0) -> tuple[Array, Array]:
      """The point at lam + r h and its time: (alpha / alpha_t) x - sigma (expm1(r h) eps + extra)."""
      t = process.lam_inverse(lam + r * h)
      alpha, sigma = process.schedule(t)
      return expand(alpha / alpha_t, x) * x - expand(sigma, x) * (expand(jnp.expm1(r * h), x) * eps + extra), t

    eps = denoise(x, process.lam_inverse(lam), cond).eps
    if order == 2:
      low = reach(1.0, eps)[0]
      middle = denoise(*reach(0.5, eps), cond).eps
      high = reach(1.0, eps, expand(jnp.expm1(h), x) * (middle - eps))[0]
    else:
      first = denoise(*reach(1 / 3, eps), cond).eps - eps
      low = reach(1.0, eps, expand(jnp.expm1(h), x) * 1.5 * first)[0]
      second = denoise(*reach(2 / 3, eps, 2 * _rest(2 / 3 * h, x) * first), cond).eps - eps
      high = reach(1.0, eps, 1.5 * _rest(h, x) * second)[0]
    delta = jnp.maximum(atol, rtol * jnp.maximum(jnp.abs(low), jnp.abs(before)))
    return high, (high - low) / delta, low

  lam = jnp.full(len(x), start, x.dtype)
  last, h = jnp.asarray(end, x.dtype), jnp.full_like(lam, 0.05)
  x, tries, success = _adapt(
    attempt, x, lam, last, h, x, order, (0.0, jnp.inf), jnp.max if coupled else None, max_steps
  )
  return Solution(x, order * tries, success)


def _rest(h: Array, x: Array) -> Array:
  """expm1(h) / h - 1, by its series where h is small."""
  return expand(jnp.where(jnp.abs(h) < 0.05, h / 2 + h**2 / 6 + h**3 / 24, jnp.expm1(h) / h - 1), x)


def _adapt(
  attempt: Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]],
  x: Array,
  start: Array,
  end: Array,
  h: Array,
  kept: Array,
  order: int,
  factors: tuple[Any, Any],
  together: Callable[[Array], Array] | None,
  max_steps: int,
) -> tuple[Array, Array, Array]:
  """Steps from `start` (B,) to `end` with attempt(x, s, h, kept) -> (new x, scaled error, new kept).

  `together` makes one error of those of the batch; None leaves every sample its own. Returns x, the attempts of each
  sample, and whether it success the end.
  """
  close = 8 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(end), jnp.abs(start))
  tiny = jnp.finfo(x.dtype).tiny

  def going(carry: tuple) -> Array:
    _, s, _, _, tries = carry
    return jnp.any((jnp.abs(end - s) > close) & (tries < max_steps))

  def body(carry: tuple) -> tuple:
    x, s, h, kept, tries = carry
    on = (jnp.abs(end - s) > close) & (tries < max_steps)
    last = jnp.abs(h) >= jnp.abs(end - s)
    step = jnp.where(last, end - s, h)
    new, scaled, new_kept = attempt(x, s, step, kept)
    error = jnp.sqrt(jnp.mean(scaled**2, axis=tuple(range(1, x.ndim))))
    if together is not None:
      error = jnp.full_like(error, together(error))
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)  # a step that overflowed is tried shorter
    good = on & (error <= 1)
    factor = jnp.clip(0.9 * jnp.maximum(error, tiny) ** (-1 / order), *factors)
    factor = jnp.where(jnp.isinf(error), 0.2, jnp.minimum(factor, 1e3))
    x = jnp.where(expand(good, x), new, x)
    kept = jnp.where(expand(good, x), new_kept, kept)
    s = jnp.where(good, jnp.where(last, end, s + step), s)
    return x, s, jnp.where(on, step * factor, h), kept, tries + on

  carry = (x, start, h, kept, jnp.zeros(len(x), jnp.int32))
  x, s, _, _, tries = jax.lax.while_loop(going, body, carry)
  return x, tries, jnp.abs(end - s) <= close
