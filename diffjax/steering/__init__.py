"""Steering: particles, trees and searches that wrap a solver and follow a reward; one method a file."""

from diffjax.steering.exact_steps import exact_steps
from diffjax.steering.feynman_kac import feynman_kac, gaussian_looks
from diffjax.steering.particles import Ensemble, particle_keys, particles, spread
from diffjax.steering.twisted import linear_likelihood, twist, twisted

__all__ = [
  'Ensemble',
  'exact_steps',
  'feynman_kac',
  'gaussian_looks',
  'linear_likelihood',
  'particle_keys',
  'particles',
  'spread',
  'twist',
  'twisted',
]
