"""The log-density of a denoiser's probability-flow ODE: how the flow to noise stretches volumes, and where it ends."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import divergence as traces
from diffjax import keys, labels
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.solvers import precision
from diffjax.solvers.control import Control, adapt, retreat, unit_of
from diffjax.solvers.own.adaptive import misses, stages

__all__ = ['Density', 'log_density', 'prior_log_density']


class Density(NamedTuple):
  """Log-densities in nats (B,), the noise that each x flows to (B, ...), evaluations (B,), whether it reached t_max."""

  log_p: Array
  noise: Array
  nfe: Array
  success: Array


def log_density(
  denoise: Denoise,
  x: Array,
  key: Array | None = None,
  cond: Cond = None,
  *,
  divergence: str = 'exact',
  probes: int = 1,
  rtol: float = 1e-5,
  atol: float = 1e-5,
  start: float | None = None,
  data_mean: Any = 0.0,
  data_std: float = 1.0,
  max_steps: int = 1000,
) -> Density:
  """The log-density of data under the probability-flow ODE of a denoiser.

      log p(x) = log N(x_T; alpha_T mean, alpha_T^2 std^2 + sigma_T^2) + int div v dt
      dx/dt = v = alpha' x0 + sigma' eps
      div v = d sigma'/sigma + (alpha' - alpha sigma'/sigma) tr(d x0 / dx)

  from x at `start` to t_max by Dormand and Prince's adaptive method on (x, int div v), a step for each sample. With
  random probes, the same all along a path, the estimate is unbiased up to the error of the solver. `hutchpp` is exact
  where the data lie on fewer than probes / 3 dimensions, and worse than `rademacher` elsewhere.

  arXiv:2011.13456 sec. 4.3 and app. D.2, arXiv:2010.09649

  Args:
    denoise: any consistent denoiser, whose x0 and eps make up x.
    x: (B, ...), one array.
    key: a typed key, or one a sample; an exact divergence needs none.
    cond: the condition of each sample.
    divergence: 'exact' (a jvp a dimension), 'rademacher', 'gaussian' or 'hutchpp'.
    probes: jvps of an estimate.
    rtol: the error allowed to a step, relative and absolute: of x in the data's units, of the integral in nats a
      dimension.
    atol: see `rtol`.
    start: the time at which x is; None is t_min of the process.
    data_mean: the mean of the data, a number or an array like one example; with `data_std` it tells the law at t_max,
      with which generators begin too.
    data_std: the standard deviation of the data.
    max_steps: attempts after which a sample is given up.

  Raises:
    InputError: an unknown divergence or a number of probes that it cannot use, no key for one that is random, a start
      outside (0, t_max), a number that is not positive, x of several modalities, or wrong labels.
  """
  process = denoise.process
  if isinstance(x, dict):
    raise InputError(f'x: got modalities {", ".join(x)}; allowed: one array (B, ...)')
  traces.check(divergence, probes, x[0].size)
  if divergence != 'exact' and key is None:
    raise InputError(f'key: got None with divergence={divergence!r}; allowed: a typed key')
  if not (rtol > 0 and atol > 0 and data_std > 0):
    raise InputError(f'rtol, atol, data_std: got {rtol}, {atol}, {data_std}; allowed: positive numbers')
  if start is not None and not 0 < start < float(process.t_max):
    raise InputError(f'start: got {start}; allowed: above 0 and below {float(process.t_max):g}')
  labels.check_for(denoise, cond)
  key = None if key is None else keys.per_sample(key, len(x))
  begin = process.t_min if start is None else start
  numbers = tuple(jnp.asarray(v, float) for v in (begin, rtol, atol, data_mean, data_std))
  return _solved(denoise, x, key, cond, numbers, divergence, probes, max_steps)


def prior_log_density(process: Process, x: Array, mean: Any = 0.0, std: Any = 1.0) -> Array:
  """The log-density (B,) of x (B, ...) at t_max for data N(mean, std^2): N(alpha mean, alpha^2 std^2 + sigma^2)."""
  alpha, sigma = process.schedule(process.t_max)
  each = jax.scipy.stats.norm.logpdf(x, alpha * mean, jnp.hypot(alpha * std, sigma))
  return jnp.sum(each.reshape(len(x), -1), axis=-1)


@partial(jax.jit, static_argnames=('divergence', 'probes', 'max_steps'))
def _solved(denoise, x, key, cond, numbers, divergence, probes, max_steps):
  process: Process = denoise.process
  start, rtol, atol, data_mean, data_std = numbers
  denoise, given, x = precision.with_networks_in(denoise, x), x, precision.widened(x)
  flat = x.reshape(len(x), -1)
  d = flat.shape[1]
  v = traces.drawn(divergence, probes, key, flat)

  def slope(y: Array, t: Array) -> Array:
    def pair(flat: Array) -> tuple[Array, Array]:
      pred = precision.paired(denoise(flat.reshape(x.shape), t, cond), x)
      return pred.x0.reshape(flat.shape), pred.eps.reshape(flat.shape)

    (x0, eps), trace = traces.with_trace(divergence, pair, y[:, :d], v)
    (alpha, sigma), (da, ds) = process.schedule(t), process.rates(t)
    spread = traces.of_identity(divergence, v) * ds / sigma + (da - alpha * ds / sigma) * trace
    return jnp.concatenate([process.velocity(x0, eps, t), spread[:, None]], 1)

  def of(x: Any, total: Any) -> Array:
    """A figure of x beside one of the integral, (B, d + 1)."""
    return jnp.concatenate([jnp.broadcast_to(x, flat.shape), jnp.full((len(flat), 1), total, flat.dtype)], 1)

  def attempt(y: Array, t: Array, h: Array, k1: Array) -> tuple[Array, Array, Array]:
    new, slopes = stages(slope, y, t, h, k1)
    unit, after = (of(unit_of(process.schedule(time), data_std, flat), d) for time in (t, t + h))
    size = jnp.maximum(jnp.abs(y / unit), jnp.abs(new / after))
    error = misses(slopes, h[:, None] / after, of(data_std, 1.0)) / (atol + rtol * size)
    # as large as that of x or that of the integral, which would drown among many dimensions
    return new, jnp.maximum(jnp.sqrt(jnp.mean(error[:, :d] ** 2, 1)), error[:, d])[:, None], slopes[-1]

  y = jnp.pad(flat, ((0, 0), (0, 1)))
  t, last = jnp.full(len(x), start, x.dtype), jnp.asarray(process.t_max, x.dtype)
  h = 0.01 * (last - t)
  control = Control(5, lambda t: retreat(process, t, data_std), None, max_steps)
  y, tries, success = adapt(attempt, y, slope(y, t), control, start=t, end=last, h=h)
  noise = y[:, :d].reshape(x.shape)
  log_p = prior_log_density(process, noise, data_mean, data_std) + y[:, d]
  return Density(log_p, precision.rounded(noise, given), 1 + 6 * tries, success)
