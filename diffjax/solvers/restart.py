"""Restart: noise put back in the middle of a trajectory, and the same stretch solved again."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at, on_grid, times_of
from diffjax.process import Process
from diffjax.solvers.table import Table
from diffjax.solvers.transforms import after_noise, joined

__all__ = ['restart']


def restart(
  build: Callable[..., Table],
  process: Process,
  ts: Any,
  *,
  levels: Sequence[tuple[int, int, float, float]],
  s_noise: float = 1.0,
  rho: float = 7.0,
  **options: Any,
) -> Table:
  """A solver that goes back up in noise, by a draw of the forward process, and down again, several times over.

  A level (points, repeats, low, high) acts where the trajectory comes to the node of the grid nearest to
  sigma / alpha = low. So many times:

      x' = (alpha_high / alpha_low) x + alpha_high s_noise sqrt(high^2 - low^2) z,

  a row that is not evaluated, then the solver from high to low on EDM's grid of that many points, both ends counted.
  An error in the law of x that the way down has gathered shrinks by a factor in every repeat, since two points that
  are noised alike land nearer; the error of the added steps does not. For a Gaussian of variance v the factor of the
  mean is sqrt((v + low^2) / (v + high^2)). A method that looks back starts over at every level.

  (points - 1) repeats steps more; for Heun two evaluations each.   arXiv:2306.14878 Alg. 1

  Args:
    build: (process, ts, **options) -> Table, on grids of as few as two times.
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    levels: of (points, repeats, low, high) in sigma / alpha, by falling noise; published for CIFAR-10 with 18 steps of
      Heun are (3, 2, .06, .3) to (3, 20, .06, .3).
    s_noise: the standard deviation of the noise; there 1.003.
    rho: of EDM's grid.
    **options: of the builder.

  Raises:
    InputError: a level has fewer than two points or one repeat, does not rise from its node, leaves the process, comes
      after a less noisy one; or what the builder refuses.
  """
  ts, _, sigma, lam = on_grid(process, ts)
  inner = np.exp(-lam[1:])[sigma[1:] > 0]  # nodes where noise can be put back
  if not len(inner):
    raise InputError(f'ts: got {len(ts)} times; allowed: a time between the first and sigma = 0')
  parts, first = [], 0
  for level in levels:
    points, repeats, low, high = _checked(process, level)
    node = 1 + int(np.argmin(np.abs(inner - low)))
    if node < first or not high > inner[node - 1]:
      raise InputError(f'levels: got {tuple(level)}, at the node of sigma / alpha = {inner[node - 1]:.4g}; allowed: '
                       'levels by falling noise, each with high above its node')  # fmt: skip
    if node > first:
      parts.append(build(process, ts[first : node + 1], **options))
    spaced = np.linspace(high ** (1 / rho), inner[node - 1] ** (1 / rho), points) ** rho
    again = np.append(times_of(process, -np.log(spaced[:-1])), ts[node])
    alpha = at(process, again[[0, -1]])[0]
    std = alpha[0] * s_noise * np.sqrt((high - spaced[-1]) * (high + spaced[-1]))
    parts += [after_noise(build(process, again, **options), ts[node], alpha[0] / alpha[1], std)] * repeats
    first = node
  if first < len(ts) - 1:
    parts.append(build(process, ts[first:], **options))
  return joined(parts)


def _checked(process: Process, level: Any) -> tuple[int, int, float, float]:
  most = np.exp(-at(process, [float(process.t_max)])[2][0])
  if len(level) == 4 and level[0] >= 2 and level[1] >= 1 and 0 < level[2] < level[3] <= most:
    return int(level[0]), int(level[1]), float(level[2]), float(level[3])
  raise InputError(f'levels: got {level}; allowed: (points, repeats, low, high), at least 2 points and 1 repeat, '
                   f'0 < low < high <= {most:.4g}')  # fmt: skip
