"""Steering: particles, trees and searches that wrap a solver and follow a reward; one method a file."""

from diffjax.steering.exact_steps import exact_steps
from diffjax.steering.feynman_kac import feynman_kac, gaussian_looks
from diffjax.steering.find import find
from diffjax.steering.noise_search import best_of, paths, zero_order
from diffjax.steering.particles import Ensemble, particle_keys, particles, spread
from diffjax.steering.rollover import rollover, svdd
from diffjax.steering.tree import tree_sampling, tree_search
from diffjax.steering.twisted import linear_likelihood, twist, twisted

__all__ = [
  'Ensemble',
  'best_of',
  'exact_steps',
  'feynman_kac',
  'find',
  'gaussian_looks',
  'linear_likelihood',
  'particle_keys',
  'particles',
  'paths',
  'rollover',
  'spread',
  'svdd',
  'tree_sampling',
  'tree_search',
  'twist',
  'twisted',
  'zero_order',
]
