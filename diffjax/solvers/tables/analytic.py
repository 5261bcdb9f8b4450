"""Analytic-DPM: the reverse variance that is best for a network, from one number a noise level, and the best grid."""

from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at, on_grid
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.grids import cheapest_path
from diffjax.solvers.table import Table
from diffjax.statistics.types import NoiseEnergy, given

__all__ = ['analytic_dpm']

BOUNDS = ('data', 'energy')


def analytic_dpm(
  process: Process, ts: Any, statistics: NoiseEnergy, eta: float = 1.0, bound: str = 'data', last_noise: float = np.inf
) -> Table:
  """Analytic-DPM: DDIM at this eta with the optimal isotropic variance.

      x_s   = mean + std z
      mean  = alpha_s x0 + sqrt(sigma_s^2 - std'^2) eps,   std' = eta sigma_s sqrt(1 - e^{-2h}), that of DDIM
      std^2 = std'^2 + c^2 C,   c = alpha_s - sqrt(sigma_s^2 - std'^2) alpha_t / sigma_t
      C     = (sigma_t / alpha_t)^2 (1 - Gamma_t), the mean variance of an element of x0 given x_t

  Gaussian data get their variance right in any number of steps. No noise into sigma = 0. Finite at alpha = 0. For
  images the paper also clips x0: `diffjax.guidance.threshold`.

  arXiv:2201.06503 Th. 1

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    statistics: of this process and network, `diffjax.statistics.energies`.
    eta: 1 for DDPM, 0 for DDIM.
    bound: 'data' keeps C between 0 and ((high - low) / 2)^2 of the data, the most that it can be; 'energy' holds to
      0 <= Gamma <= 1 alone, that is 0 <= C <= (sigma_t / alpha_t)^2.
    last_noise: the most that the last step with noise may move an element, in the mean and in grey levels of 2 / 255;
      the paper has 1 or 2 for images.

  Raises:
    InputError: no statistics or another process's; eta is outside [0, 1]; another bound; last_noise is not positive.
  """
  given(process, statistics, NoiseEnergy)
  if not 0 <= eta <= 1:
    raise InputError(f'eta: got {eta}; allowed: a number from 0 (DDIM) to 1 (DDPM)')
  if bound not in BOUNDS:
    raise InputError(f'bound: got {bound!r}; allowed: {", ".join(BOUNDS)}')
  if not last_noise > 0:
    raise InputError(f'last_noise: got {last_noise}; allowed: a positive number of grey levels')
  ts, alpha, sigma, lam = on_grid(process, ts)
  spread = statistics.spread(lam[:-1])
  if bound == 'data':
    spread = np.minimum(spread, ((float(statistics.high) - float(statistics.low)) / 2) ** 2)
  fade = np.exp(-np.diff(lam))  # e^{-h}, 0 where either lam is infinite
  kept = np.sqrt(1 - eta**2 + (eta * fade) ** 2)  # of sigma_s
  own = eta * sigma[1:] * np.sqrt(-np.expm1(-2 * np.diff(lam)))
  std = np.sqrt(own**2 + (alpha[1:] * (1 - fade * kept)) ** 2 * spread)
  noisy = np.flatnonzero(sigma[1:] > 0)
  if len(noisy):
    std[noisy[-1]] = min(std[noisy[-1]], last_noise * 2 / 255 * np.sqrt(np.pi / 2))
  table = TableBuilder('x')
  for i in range(len(ts) - 1):
    mean = alpha[i + 1] * table.x0 + sigma[i + 1] * kept[i] * table.eps
    table.row(ts[i], x=mean + std[i] * table.z if sigma[i + 1] > 0 else mean)
  return table.done()


def analytic_grid(process: Process, statistics: NoiseEnergy, n: int, candidates: int = 1000) -> np.ndarray:
  """The n + 1 times, t_max first and 0 last, on which Analytic-DPM has the greatest likelihood.

  Of `candidates` times spaced evenly up to t_max it keeps n, the first and the last among them, with the least sum of
  `step_costs`, by dynamic programming. Where estimates are bad (Gamma > 1, near t_max), the last candidates, twice as
  many as are bad, form a tail with evenly spaced nodes: .8 of the share of n that the tail is of the candidates,
  rounded down, and at least one.

  arXiv:2201.06503

  Raises:
    InputError: no statistics or another process's; n is below 2 or above the number of candidates.
  """
  given(process, statistics, NoiseEnergy)
  if not 2 <= n <= candidates:
    raise InputError(f'n: got {n}; allowed: a whole number from 2 to the {candidates} candidates')
  ts = float(process.t_max) * np.arange(1, candidates + 1) / candidates
  lam = at(process, ts)[2]
  bad = min(2 * int(np.sum(np.interp(lam, statistics.lam, statistics.value) > 1)), candidates - 2)
  chosen = n if not bad else max(2, min(n - 1, int(np.ceil((1 - 0.8 * bad / candidates) * n))))
  good = candidates - bad
  places = cheapest_path(step_costs(statistics, lam[:good]), min(chosen, good) - 1)
  tail = np.linspace(good - 1, candidates - 1, n - len(places) + 1).round().astype(int)[1:]
  return np.concatenate([ts[[*places, *tail]][::-1], [0.0]])


def step_costs(statistics: NoiseEnergy, lam: np.ndarray) -> np.ndarray:
  """The cost of every possible step of an ancestral sampler, as a matrix.

  F[s, r] = log(1 - (1 - e^{-2h}) Gamma_r), h = lam_s - lam_r, of a step from r to the cleaner s; inf elsewhere.

  Up to terms that are the same for all paths between the same ends, twice the bound on -log p per element. lam falls
  with the index. Where alpha_r = 0, less 2 lam_r, which is infinite and common to all paths from there.
  """
  gamma, spread = statistics.energy(lam), statistics.spread(lam)
  shift = np.where(np.isfinite(lam), 2 * lam, 0.0)
  costs = np.log(spread + gamma * np.exp(-2 * lam)[:, None]) + shift  # e^{2 lam_r} (C_r + Gamma_r e^{-2 lam_s})
  return np.where(np.arange(len(lam))[:, None] < np.arange(len(lam)), costs, np.inf)
