"""The rows of the property table of what weighs a sample."""

import jax
from entries import Entry, denoiser

from diffjax import likelihood, schedules

PROCESS, TS = schedules.vp_linear(), (1.0, 0.6, 0.2)  # of which the steps are laid out on the host


def density(denoise, x, cond, key):
  out = likelihood.log_density(denoise, x, key, cond, divergence='rademacher', rtol=1e-3, atol=1e-3)
  return out.log_p, out.noise


def discrete(denoise, x, cond, key):
  return likelihood.discrete_bound(denoise.replace(process=PROCESS), x, TS, key, cond).total


def weighted(denoise, x, cond, key):
  return likelihood.importance_bound(denoise.replace(process=PROCESS), x, TS, key, cond, samples=2).log_p


def spread(denoise, x, cond, key):
  q = likelihood.dequantiser(jax.random.key(0), x.shape[1:], 4, hidden=4)
  density = lambda y, key: -likelihood.continuous_bound(denoise, y, key, cond, samples=1).total  # noqa: E731
  return likelihood.dequantised_bound(q, density, x, key)


def learned(make):
  """A loss of the denoiser under a learned schedule."""

  def run(denoise, x, cond, key):
    roles = {'student': denoise.params, 'schedule': likelihood.schedule_params(jax.random.key(0), width=4)}
    told = lambda roles, process: denoise.replace(params=roles['student'], process=process)  # noqa: E731
    return make(told)(roles, {'x': x, 'cond': cond}, key)[0]

  return run


LIKELIHOOD = {
  'log_density': Entry(denoiser, density, close=5e-3, reverse=False),
  'discrete_bound': Entry(denoiser, discrete, close=1e-4),
  'continuous_bound': Entry(
    denoiser, lambda denoise, x, cond, key: likelihood.continuous_bound(denoise, x, key, cond, samples=2).total,
    close=1e-4,
  ),
  'importance_bound': Entry(denoiser, weighted, close=1e-4),
  'dequantised_bound': Entry(denoiser, spread, close=1e-4),
  'elbo': Entry(denoiser, learned(likelihood.elbo), close=1e-4),
  'schedule_variance': Entry(denoiser, learned(likelihood.schedule_variance), close=1e-4),
}  # fmt: skip
RECORDS = {'Bits', 'Bound', 'Density', 'Dequantiser', 'Weighted'}
PARTS = {  # on the host, or no function of x
  'bits_per_dim', 'dequantised', 'dequantiser', 'fit_dequantiser', 'in_bits', 'schedule_of', 'schedule_params',
}  # fmt: skip
GROUPS = {'likelihood': (LIKELIHOOD, set(likelihood.__all__) - RECORDS - PARTS)}
