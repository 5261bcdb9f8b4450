"""The step of an adaptive solver: errors in the data's units, and how far a step may go.

An error at time t is that of x / unit(t), unit = sqrt(alpha^2 + sigma^2 / data_std^2): the flow of a Gaussian of that
deviation takes an error e of x_t to e / unit(t) of the sample. So one tolerance means the same at every time of every
process. The flow of a mixture stretches an error between its parts by more, and the sample's is larger by as much.

An estimate of few dimensions passes through zero by chance, and a step that trusts it misses what lies beyond. So a
step is at most GROWTH times as long as the one before it; it turns the angle arctan(sigma / (alpha data_std)), which
runs from pi/2 at pure noise to 0 at the data, by at most TURN; and once the noise is smaller than the data it changes
lam by at most LEAP, since data have structure finer than their deviation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.process import Process, expand

__all__ = []

SHRINK, GROWTH = 0.2, 2.0  # of a step to the next; Dormand-Prince has 10, DPM-Solver no limit
TURN, LEAP = 0.4, 1.5


def unit_of(level: tuple[Array, Array], data_std: Any, x: Array) -> Array:
  """How large x at this (alpha, sigma) is for data of size one."""
  return expand(jnp.sqrt(level[0] ** 2 + (level[1] / data_std) ** 2), x)


def reach(lam: Array, data_std: Any) -> Array:
  """The largest lam that a step from this one may go to."""
  rho = jnp.exp(-lam) / data_std
  turned = -jnp.log(data_std * jnp.tan(jnp.maximum(jnp.arctan(rho) - TURN, 1e-6)))
  return jnp.where(rho < 1, jnp.minimum(turned, lam + LEAP), turned)


def retreat(process: Process, t: Array, data_std: Any) -> Array:
  """The latest time that a step towards noise from t may go to, by the same rules; t_max where the turn reaches it."""
  lam = process.lam(t)
  rho = jnp.exp(-lam) / data_std
  angle = jnp.arctan(rho) + TURN
  turned = -jnp.log(data_std * jnp.tan(jnp.minimum(angle, jnp.pi / 2 - 1e-3)))
  far = process.lam_inverse(jnp.where(rho < 1, jnp.maximum(turned, lam - LEAP), turned))
  return jnp.where(angle < jnp.pi / 2 - 1e-3, far, process.t_max)


class Control(NamedTuple):
  """How an adaptive solver chooses its steps: the next is clip(.9 error^{-1/order}, shrink, grow) times as long.

  Attributes:
    order: the order of the error in the length of the step.
    farthest: s -> the point that no step from s goes beyond.
    together: makes one error of those of the batch; None leaves every sample its own.
    max_steps: attempts after which a sample is given up.
    shrink: the least factor from a step to the next.
    grow: the greatest.
  """

  order: int
  farthest: Callable[[Array], Array]
  together: Callable[[Array], Array] | None
  max_steps: int
  shrink: float = SHRINK
  grow: float = GROWTH


def adapt(
  attempt: Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]],
  x: Array,
  kept: Array,
  control: Control,
  *,
  start: Array,
  end: Array,
  h: Array,
) -> tuple[Array, Array, Array]:
  """Steps from `start` (B,) to `end`; returns x, the attempts of each sample, and whether it reached the end.

  Args:
    attempt: (x, s, h, kept) -> the new x, its scaled error (a step is taken where the root mean square is at most 1),
      and what the next attempt is handed.
    x: the samples (B, ...) at `start`.
    kept: what the first attempt is handed, like x.
    control: how steps are chosen.
    start: where each sample is (B,), in the variable that is stepped in.
    end: where all of them go, ().
    h: the first step (B,).
  """
  close = 8 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(end), jnp.abs(start))
  tiny = jnp.finfo(x.dtype).tiny

  def going(carry: tuple) -> Array:
    _, s, _, _, tries = carry
    return jnp.any((jnp.abs(end - s) > close) & (tries < control.max_steps))

  def body(carry: tuple) -> tuple:
    x, s, h, kept, tries = carry
    on = (jnp.abs(end - s) > close) & (tries < control.max_steps)
    step = jnp.sign(h) * jnp.minimum(jnp.abs(h), jnp.abs(control.farthest(s) - s))
    last = jnp.abs(step) >= jnp.abs(end - s)
    step = jnp.where(last, end - s, step)
    new, scaled, new_kept = attempt(x, s, step, kept)
    error = jnp.sqrt(jnp.mean(scaled**2, axis=tuple(range(1, x.ndim))))
    if control.together is not None:
      error = jnp.full_like(error, control.together(error))
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)  # a step that overflowed is tried shorter
    good = on & (error <= 1)
    factor = jnp.clip(0.9 * jnp.maximum(error, tiny) ** (-1 / control.order), control.shrink, control.grow)
    x = jnp.where(expand(good, x), new, x)
    kept = jnp.where(expand(good, x), new_kept, kept)
    s = jnp.where(good, jnp.where(last, end, s + step), s)
    return x, s, jnp.where(on, step * factor, h), kept, tries + on

  carry = (x, start, h, kept, jnp.zeros(len(x), jnp.int32))
  x, s, _, _, tries = jax.lax.while_loop(going, body, carry)
  return x, tries, jnp.abs(end - s) <= close
