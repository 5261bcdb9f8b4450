"""Likelihood: the log-density of the probability-flow ODE, variational bounds term by term, and bits per dimension."""

from diffjax.likelihood.bits import Bits, bits_per_dim, dequantised, in_bits
from diffjax.likelihood.bounds import Bound, continuous_bound, discrete_bound
from diffjax.likelihood.flow import Density, log_density
from diffjax.likelihood.variational import elbo, schedule_of, schedule_params, schedule_variance
from diffjax.likelihood.weighted import Weighted, importance_bound

__all__ = [
  'Bits',
  'Bound',
  'Density',
  'Weighted',
  'bits_per_dim',
  'continuous_bound',
  'dequantised',
  'discrete_bound',
  'elbo',
  'importance_bound',
  'in_bits',
  'log_density',
  'schedule_of',
  'schedule_params',
  'schedule_variance',
]
