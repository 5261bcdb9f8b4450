"""Time grids: strictly decreasing arrays of n + 1 times in float64, from t_max to 0, n evaluations.

Grids spaced in t, and `noise_share`, run over [0, t_max]. Grids spaced in lam or in sigma / alpha put n nodes on
[t_min, t_max], where lam is finite, and 0 after them: the last evaluation denoises. With `to_zero=False` a grid ends at
t_min instead.
"""

from typing import Any

import numpy as np

from diffjax.contracts import Time
from diffjax.errors import InputError
from diffjax.noise_levels import at, checked, on_grid, times_of
from diffjax.process import Process

__all__ = ['uniform', 'uniform_lam', 'karras', 'quadratic', 'cosine', 'noise_share', 'array']


def uniform(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Evenly spaced in t."""
  return np.linspace(float(process.t_max), 0.0 if to_zero else float(process.t_min), _count(n) + 1)


def quadratic(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Evenly spaced in sqrt t, denser near the data.

  arXiv:2010.02502
  """
  start, end = float(process.t_max), 0.0 if to_zero else float(process.t_min)
  ts = np.linspace(np.sqrt(start), np.sqrt(end), _count(n) + 1) ** 2
  ts[0], ts[-1] = start, end
  return ts


def cosine(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Times denser at both ends.

  t = end + (t_max - end) sin^2(pi/2 u), u evenly from 1 to 0.
  """
  end = 0.0 if to_zero else float(process.t_min)
  return end + (float(process.t_max) - end) * np.sin(np.linspace(np.pi / 2, 0, _count(n) + 1)) ** 2


def uniform_lam(process: Process, n: int, to_zero: bool = True) -> np.ndarray:
  """Evenly spaced in lam, half the log signal-to-noise ratio.

  arXiv:2206.00927
  """
  return _by_noise(process, n, to_zero, lambda lam: lam, lambda u: u)


def karras(process: Process, n: int, to_zero: bool = True, rho: float = 7.0) -> np.ndarray:
  """EDM's grid, denser near the data.

  Evenly spaced in (sigma / alpha)^{1/rho}.

  arXiv:2206.00364 eq. 5
  """
  return _by_noise(process, n, to_zero, lambda lam: np.exp(-lam / rho), lambda u: -rho * np.log(u))


def noise_share(
  process: Process, n: int, to_zero: bool = True, data_std: float = 0.5, power: float = 1.5
) -> np.ndarray:
  """Times even in a power of the noise's share of x_t, the same noise levels on every process, none of them infinite.

  Even in u^{1/power}, where u = sigma / (alpha data_std + sigma) is the noise's share of x_t, 1 at t_max, 0 at 0.
  power 1 on rectified flow with data_std 1 is `uniform`, and another data_std is the shifted grid of arXiv:2403.03206.

  Raises:
    InputError: data_std or power is not positive.
  """
  if not (data_std > 0 and power > 0):
    raise InputError(f'data_std, power: got {data_std}, {power}; allowed: positive numbers')
  start, end = float(process.t_max), 0.0 if to_zero else float(process.t_min)
  alpha, sigma, _ = at(process, [start, end])
  first, last = (sigma / (alpha * data_std + sigma)) ** (1 / power)
  u = np.linspace(first, last, _count(n) + 1)[1:-1] ** power
  return np.concatenate([[start], times_of(process, np.log1p(-u) - np.log(data_std * u)), [end]])


def array(process: Process, n: int, times: Time) -> np.ndarray:
  """A grid written out, t_max first, of n + 1 times.

  Raises:
    InputError: it has another length, rises or leaves the process.
  """
  if len(times) != n + 1:
    raise InputError(f'times: got {len(times)} of them for {n} steps; allowed: {n + 1}')
  return checked(process, times)


def spliced(ts: Any, part: Any) -> np.ndarray:
  """The grid with what lies between the ends of `part`, and at them, replaced by `part`.

  Raises:
    InputError: either is not a row of at least two strictly decreasing times, or `part` starts above or ends below ts.
  """
  ts, part = np.asarray(ts, np.float64), np.asarray(part, np.float64)
  for name, times in (('ts', ts), ('part', part)):
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
      raise InputError(f'{name}: got {times}; allowed: at least two strictly decreasing times')
  if part[0] > ts[0] or part[-1] < ts[-1]:
    raise InputError(f'part: got {part[0]:.6g} to {part[-1]:.6g}; allowed: within {ts[0]:.6g} to {ts[-1]:.6g}')
  return np.concatenate([ts[ts > part[0]], part, ts[ts < part[-1]]])


def cheapest_path(costs: Any, steps: int) -> np.ndarray:
  """Finds the places, `steps` + 1 of them from the first to the last, between which steps have the least summed cost.

  Bellman's recursion V_m(k) = min_{j < k} V_{m-1}(j) + costs[j, k].

  Args:
    costs: (K + 1, K + 1), of the step from place j to place k; only j < k is looked at.
    steps: how many.

  Raises:
    InputError: steps is not from 1 to K.
  """
  costs = np.asarray(costs, np.float64)
  last = len(costs) - 1
  if not 1 <= steps <= last:
    raise InputError(f'n: got {steps}; allowed: 1 to the {last} steps between the knots')
  forward = np.where(np.triu(np.ones_like(costs, bool), 1), costs, np.inf)
  value = np.where(np.arange(last + 1) == 0, 0.0, np.inf)
  came = []
  for _ in range(steps):
    total = value[:, None] + forward
    came.append(np.argmin(total, 0))
    value = np.min(total, 0)
  places = [last]
  for before in reversed(came):
    places.append(int(before[places[-1]]))
  return np.array(places[::-1])


def late(process: Process, ts: Any, level: float) -> np.ndarray:
  """Cuts off the noisy end of a grid: it begins at its first time with sigma / alpha <= level.

  Raises:
    InputError: no time would be left out, or no step left.
  """
  _, alpha, sigma, lam = on_grid(process, ts)
  above = sigma > level * alpha
  if not above[0] or above[-2]:
    low, high = np.exp(-lam[[-2, 0]])
    raise InputError(f'level: got {level:g}; allowed: sigma / alpha of at least {low:.4g} and below {high:.4g}, from '
                     'the second to the last evaluation of the grid')  # fmt: skip
  return np.asarray(ts, np.float64)[np.argmin(above) :]


def begun(process: Process, ts: Any, t: float) -> np.ndarray:
  """The grid begun at the time t instead: t, and the times of the grid below it.

  Raises:
    InputError: t is not below the first time of the grid and above its last.
  """
  ts = on_grid(process, ts)[0]
  if not ts[-1] < t < ts[0]:
    raise InputError(f't: got {t:g}; allowed: a time between the ends of the grid, {ts[-1]:.4g} and {ts[0]:.4g}')
  return np.concatenate([[t], ts[ts < t]])


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
    raise InputError(f'steps: got {n!r}; allowed: a whole number of at least 1')
  return int(n)
