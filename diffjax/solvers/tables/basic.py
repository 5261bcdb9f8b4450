"""Tables whose rows look back at nothing: Euler, DDIM at any eta, DDPM ancestral sampling, Euler-Maruyama, Heun."""

from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import at, checked, on_grid, on_host, times_of
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.data_form import in_data_form
from diffjax.solvers.table import Table
from diffjax.solvers.transforms import churned_levels

__all__ = ['ddim', 'ddpm', 'ddpm_large', 'euler', 'euler_maruyama', 'heun']


def ddim(process: Process, ts: Any, eta: float = 0.0) -> Table:
  """DDIM: takes the predicted pair to the next noise level; eta puts back part of the ancestral noise.

  x_s = alpha_s x0 + sqrt(sigma_s^2 - std^2) eps + std z, std = eta times the ancestral one.   arXiv:2010.02502

  eta = 0 is the deterministic step, also known as DPM-Solver-1 and, after rescaling, EDM's Euler step; eta = 1 is
  DDPM. First order; finite at alpha = 0 and sigma = 0.

  Raises:
    InputError: eta is outside [0, 1].
  """
  if not 0 <= eta <= 1:
    raise InputError(f'eta: got {eta}; allowed: a number from 0 (deterministic) to 1 (DDPM)')
  ts, alpha, sigma, lam = on_grid(process, ts)
  table = TableBuilder('x')
  for i in range(len(ts) - 1):
    std = eta * sigma[i + 1] * np.sqrt(-np.expm1(-2 * (lam[i + 1] - lam[i]))) if eta else 0.0
    after = alpha[i + 1] * table.x0 + np.sqrt(sigma[i + 1] ** 2 - std**2) * table.eps
    table.row(ts[i], x=after + std * table.z if eta else after)
  return table.done()


def ddpm(process: Process, ts: Any) -> Table:
  """DDPM: ancestral sampling with the small variance, which is DDIM at eta = 1.

  A draw of the posterior q(x_s | x_t, x0) with the predicted x0. Its variance is the small one of the paper; also known
  as SDE-DPM-Solver++(1).

  arXiv:2006.11239
  """
  return ddim(process, ts, eta=1.0)


def ddpm_large(process: Process, ts: Any, coordinates: str = 'vp') -> Table:
  """DDPM with the large variance, that of a forward step; no noise into sigma = 0.

  x_s = alpha_s x0 + (alpha_t / alpha_s) (sigma_s^2 / sigma_t) eps + std z, std = size_s / size_t sigma_t sqrt(1 -
  e^{-2h}), h = lam_s - lam_t.

  arXiv:2006.11239

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    coordinates: x_s takes on what x_t has lost, so that it matters in which coordinates that is measured. 'vp', with
      size^2 = alpha^2 + sigma^2, is the paper's: those of the variance preserving process of the same noise levels,
      and one sampler for all processes. 'own', with size = 1, is std^2 = sigma_t^2 - (alpha_t sigma_s / alpha_s)^2 of
      the process itself: sigma_t^2 - sigma_s^2 on EDM, which is more noise.

  Raises:
    InputError: coordinates of another name.
  """
  if coordinates not in ('vp', 'own'):
    raise InputError(f'coordinates: got {coordinates!r}; allowed: vp, own')
  ts, alpha, sigma, lam = on_grid(process, ts)
  size = np.hypot(alpha, sigma) if coordinates == 'vp' else np.ones(len(ts))
  table = TableBuilder('x')
  for i in range(len(ts) - 1):
    after = alpha[i + 1] * table.x0 + alpha[i] / alpha[i + 1] * sigma[i + 1] ** 2 / sigma[i] * table.eps
    std = size[i + 1] / size[i] * sigma[i] * np.sqrt(-np.expm1(-2 * (lam[i + 1] - lam[i])))
    table.row(ts[i], x=after + std * table.z if sigma[i + 1] > 0 else after)
  return table.done()


def euler(process: Process, ts: Any) -> Table:
  """Euler's method for the probability-flow ODE in t, of first order.

  x_s = x_t + (s - t) (alpha'_t x0 + sigma'_t eps).

  On rectified flow this is DDIM; elsewhere DDIM, which is Euler's step in sigma / alpha, is the better method.
  """
  ts = checked(process, ts)
  d_alpha, d_sigma = on_host(Process.rates, process, ts[:-1])
  table = TableBuilder('x')
  for i, h in enumerate(np.diff(ts)):
    table.row(ts[i], x=table.x + h * d_alpha[i] * table.x0 + h * d_sigma[i] * table.eps)
  return table.done()


def euler_maruyama(process: Process, ts: Any) -> Table:
  """The Euler-Maruyama method for the reverse SDE in t.

  x_s = x_t + (s - t) (f x - g^2 score) + g sqrt(t - s) z. In terms of (x0, eps): f x = f alpha x0 + f sigma eps, and
  score = -eps / sigma. Weak order one; the last step has no noise.

  arXiv:2011.13456 app. G
  """
  ts, alpha, sigma, _ = on_grid(process, ts)
  d_alpha, d_sigma = on_host(Process.rates, process, ts[:-1])
  table = TableBuilder('x')
  with np.errstate(divide='ignore'):  # a grid from alpha = 0 is refused below
    spread = d_sigma - d_alpha / alpha[:-1] * sigma[:-1]  # sigma' - f sigma
  for i, h in enumerate(np.diff(ts)):
    # -g^2 score = 2 (sigma' - f sigma) eps, so the drift is alpha' x0 + (2 sigma' - f sigma) eps
    after = table.x + h * d_alpha[i] * table.x0 + h * (d_sigma[i] + spread[i]) * table.eps
    std = np.sqrt(-2 * h * sigma[i] * spread[i])
    table.row(ts[i], x=after + std * table.z if i < len(ts) - 2 else after)
  return table.done()


def heun(
  process: Process,
  ts: Any,
  *,
  s_churn: float = 0.0,
  s_min: float = 0.0,
  s_max: float = np.inf,
  s_noise: float = 1.0,
  midpoint: float = 1.0,
) -> Table:
  """Heun's method in sigma / alpha, EDM's sampler: second order, two evaluations a step, with noise (churn) if wanted.

  x_s = (alpha_s / alpha_t) x_t + (sigma_s - alpha_s sigma_t / alpha_t) (eps_t + eps_s) / 2. A step that touches
  infinite lam is DDIM. Of n steps down to 0 it needs 2 n - 1 evaluations. Returned `in_data_form`.

  arXiv:2206.00364 Alg. 1-3

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    s_churn: noise put in before each step, which raises sigma / alpha by the factor 1 + min(s_churn / n, sqrt 2 - 1),
      at most to its value at t_max. The paper has 40 for ImageNet-64 with 256 steps.
    s_min: the sigma / alpha at which there is churn; there .05 and 50.
    s_max: see `s_min`.
    s_noise: the standard deviation of that noise; there 1.003.
    midpoint: the second evaluation, u, is made at this part a of the step in sigma / alpha, and (1 - 1 / (2 a)) eps_t +
      eps_u / (2 a) takes the place of the mean: 1 is Heun's method, 2/3 Ralston's, 1/2 the midpoint rule (Alg. 3).

  Raises:
    InputError: s_churn is negative, or midpoint is outside (0, 1].
  """
  if not 0 < midpoint <= 1:
    raise InputError(f'midpoint: got {midpoint}; allowed: a number above 0, up to 1 (Heun)')
  ts, alpha, sigma, lam = on_grid(process, ts)
  table = TableBuilder('x', 'base', 'slope')
  rho, up = churned_levels(process, lam, s_churn, s_min, s_max)
  for i in range(len(ts) - 1):
    t, a, s = ts[i], alpha[i], sigma[i]
    if up[i] > rho[i]:
      t = times_of(process, [-np.log(up[i])])[0]
      a, s = (part[0] for part in at(process, [t])[:2])
      table.row(
        ts[i], evaluated=False, x=a / alpha[i] * table.x + a * s_noise * np.sqrt(up[i] ** 2 - rho[i] ** 2) * table.z
      )
    if not np.isfinite(lam[i : i + 2]).all():
      table.row(t, x=alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps)
      continue
    u, inner, outer = ts[i + 1], alpha[i + 1], sigma[i + 1]
    if midpoint < 1:
      u = times_of(process, [-np.log(up[i] + midpoint * (np.exp(-lam[i + 1]) - up[i]))])[0]
      inner, outer = (level[0] for level in at(process, [u])[:2])
    table.row(t, x=inner * table.x0 + outer * table.eps, base=table.x, slope=table.eps)
    ratio = alpha[i + 1] / a
    mean = (1 - 0.5 / midpoint) * table.slope + 0.5 / midpoint * table.eps
    table.row(u, x=ratio * table.base + (sigma[i + 1] - ratio * s) * mean)
  return in_data_form(table.done(), process)
