"""Time grids: strictly decreasing arrays of n + 1 times in float64, from t_max to 0, n evaluations.

Grids spaced in t, and `noise_share`, run over [0, t_max]. Grids spaced in lam or in sigma / alpha put n nodes on
[t_min, t_max], where lam is finite, and 0 after them: the last evaluation denoises. With `to_zero=False` a grid ends at
t_min instead.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from diffjax.process import Process

__all__ = ['uniform', 'uniform_lam', 'karras', 'quadratic', 'cosine', 'noise_share', 'array']


def on_host(f: Callable, process: Process, values: Any) -> Any:
  """f(process, values), elementwise in values, in float64; works inside a trace that closes over the process.

  `f` is static, a module-level function or a method of Process. Lengths are rounded up to share compiled programs.
  """
  values = np.asarray(values, np.float64)
  exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), process)
  with jax.enable_x64(True), jax.ensure_compile_time_eval():
    out = _apply(f, exact, np.pad(values.ravel(), (0, -values.size % 64), mode='edge'))
  return jax.tree.map(lambda v: np.asarray(v)[: values.size].reshape(values.shape), out)


@partial(jax.jit, static_argnums=0)
def _apply(f: Callable, process: Process, values: jax.Array) -> Any:
  return f(process, values)


def at(process: Process, ts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(alpha, sigma, lam) at these times in float64, on the host."""
  return on_host(_levels, process, ts)


def _levels(process: Process, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  return *process.schedule(t), process.lam(t)


def times_of(process: Process, lam: Any) -> np.ndarray:
  """The times at which these lam are reached, in float64, on the host."""
  return on_host(Process.lam_inverse, process, lam)


def checked(process: Process, ts: Any) -> np.ndarray:
  """The grid as float64.

  Raises:
    ValueError: fewer than two times, not finite, not strictly decreasing, or outside [0, t_max].
  """
  ts = np.asarray(ts, np.float64)
  if ts.ndim != 1 or len(ts) < 2:
    raise ValueError(f'ts: got shape {ts.shape}; allowed: at least two times in one row')
  if not np.isfinite(ts).all():
    raise ValueError(f'ts: got {ts[~np.isfinite(ts)][0]}; allowed: finite times')
  rising = np.flatnonzero(np.diff(ts) >= 0)
  if len(rising):
    i = int(rising[0])
    raise ValueError(
      f'ts: got {ts[i]:.6g} followed by {ts[i + 1]:.6g} at place {i}; allowed: strictly decreasing times'
    )
  last = float(process.t_max)
  if ts[0] > last * (1 + 1e-6) or ts[-1] < 0:
    raise ValueError(f'ts: got times from {ts[0]:.6g} to {ts[-1]:.6g}; allowed: inside [0, {last:.6g}] of the process')
  return np.minimum(ts, last)


def on_grid(process: Process, ts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(alpha, sigma, lam) along a checked grid, float64; lam is +inf where sigma = 0 and -inf where alpha = 0."""
  return at(process, checked(process, ts))


def uniform(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Evenly spaced in t."""
  return np.linspace(float(process.t_max), 0.0 if to_zero else float(process.t_min), _count(n) + 1)


def quadratic(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Evenly spaced in sqrt t, denser near the data.   arXiv:2010.02502"""
  start, end = float(process.t_max), 0.0 if to_zero else float(process.t_min)
  ts = np.linspace(np.sqrt(start), np.sqrt(end), _count(n) + 1) ** 2
  ts[0], ts[-1] = start, end
  return ts


def cosine(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """t = end + (t_max - end) sin^2(pi/2 u), u evenly from 1 to 0: denser at both ends."""
  end = 0.0 if to_zero else float(process.t_min)
  return end + (float(process.t_max) - end) * np.sin(np.linspace(np.pi / 2, 0, _count(n) + 1)) ** 2


def uniform_lam(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Evenly spaced in lam, half the log signal-to-noise ratio.   arXiv:2206.00927"""
  return _by_noise(process, n, to_zero, lambda lam: lam, lambda u: u)


def karras(process: Process, n: int, to_zero: bool = True, rho: float = 7.0) -> np.ndarray:
  """Evenly spaced in (sigma / alpha)^{1/rho}.   arXiv:2206.00364 eq. 5"""
  return _by_noise(process, n, to_zero, lambda lam: np.exp(-lam / rho), lambda u: -rho * np.log(u))


def noise_share(
  process: Process, n: int, to_zero: bool = True, data_std: float = 0.5, power: float = 1.5
) -> np.ndarray:
  """Even in u^{1/power}, where u = sigma / (alpha data_std + sigma) is the noise's share of x_t, 1 at t_max, 0 at 0.

  The same noise levels on every process, none of them infinite. power 1 on rectified flow with data_std 1 is `uniform`,
  and another data_std is the shifted grid of arXiv:2403.03206.

  Raises:
    ValueError: data_std or power is not positive.
  """
  if not (data_std > 0 and power > 0):
    raise ValueError(f'data_std, power: got {data_std}, {power}; allowed: positive numbers')
  start, end = float(process.t_max), 0.0 if to_zero else float(process.t_min)
  alpha, sigma, _ = at(process, [start, end])
  first, last = (sigma / (alpha * data_std + sigma)) ** (1 / power)
  u = np.linspace(first, last, _count(n) + 1)[1:-1] ** power
  return np.concatenate([[start], times_of(process, np.log1p(-u) - np.log(data_std * u)), [end]])


def array(process: Process, n: int, times: Any) -> np.ndarray:
  """A grid written out, t_max first, of n + 1 times.

  Raises:
    ValueError: it has another length, rises or leaves the process.
  """
  if len(times) != n + 1:
    raise ValueError(f'times: got {len(times)} of them for {n} steps; allowed: {n + 1}')
  return checked(process, times)


def spliced(ts: Any, part: Any) -> np.ndarray:
  """The grid with what lies between the ends of `part`, and at them, replaced by `part`.

  Raises:
    ValueError: either is not a row of at least two strictly decreasing times, or `part` starts above or ends below ts.
  """
  ts, part = np.asarray(ts, np.float64), np.asarray(part, np.float64)
  for name, times in (('ts', ts), ('part', part)):
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
      raise ValueError(f'{name}: got {times}; allowed: at least two strictly decreasing times')
  if part[0] > ts[0] or part[-1] < ts[-1]:
    raise ValueError(f'part: got {part[0]:.6g} to {part[-1]:.6g}; allowed: within {ts[0]:.6g} to {ts[-1]:.6g}')
  return np.concatenate([ts[ts > part[0]], part, ts[ts < part[-1]]])


def late(process: Process, ts: Any, level: float) -> np.ndarray:
  """The grid from its first time with sigma / alpha <= level on.

  Raises:
    ValueError: no time would be left out, or no step left.
  """
  alpha, sigma, lam = on_grid(process, ts)
  above = sigma > level * alpha
  if not above[0] or above[-2]:
    low, high = np.exp(-lam[[-2, 0]])
    raise ValueError(f'level: got {level:g}; allowed: sigma / alpha of at least {low:.4g} and below {high:.4g}, from '
                     'the second to the last evaluation of the grid')  # fmt: skip
  return np.asarray(ts, np.float64)[np.argmin(above) :]


def _by_noise(process: Process, n: int, to_zero: bool, forth: Any, back: Any) -> np.ndarray:
  t_max, t_min = float(process.t_max), float(process.t_min)
  ends = at(process, [t_max, t_min])[2]
  if not np.isfinite(ends[0]):  # pure noise: the grid starts at t_max and is spaced from just below it
    ends = at(process, [t_max * (1 - 1e-3), t_min])[2]
  nodes = _count(n) if to_zero else n + 1
  ts = times_of(process, back(np.linspace(forth(ends[0]), forth(ends[1]), nodes)))
  ts = np.concatenate([[t_max], ts[1:]])
  if not to_zero:
    ts[-1] = t_min
  return np.concatenate([ts, [0.0]]) if to_zero else ts


def _count(n: int) -> int:
  if not (isinstance(n, int | np.integer) and n >= 1):
    raise ValueError(f'steps: got {n!r}; allowed: a whole number of at least 1')
  return int(n)
