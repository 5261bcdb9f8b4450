"""Likelihood: the log-density of the probability-flow ODE, variational bounds term by term, and bits per dimension."""

from diffjax.likelihood.bits import Bits, bits_per_dim, dequantised, in_bits
from diffjax.likelihood.bounds import Bound, continuous_bound, discrete_bound
from diffjax.likelihood.dequantisation import Dequantiser, dequantised_bound, dequantiser, fit_dequantiser
from diffjax.likelihood.flow import Density, log_density
from diffjax.likelihood.variational import elbo, schedule_of, schedule_params, schedule_variance
from diffjax.likelihood.weighted import Weighted, importance_bound

__all__ = [
  'Bits',
  'Bound',
  'Density',
  'Dequantiser',
  'Weighted',
  'bits_per_dim',
  'continuous_bound',
  'dequantised',
  'dequantised_bound',
  'dequantiser',
  'discrete_bound',
  'elbo',
  'fit_dequantiser',
  'importance_bound',
  'in_bits',
  'log_density',
  'schedule_of',
  'schedule_params',
  'schedule_variance',
]
