"""Search: solvers by evolution, dynamic programming and gradient descent, and combinations of saved checkpoints."""

from diffjax.search.boss import boss, step_costs
from diffjax.search.combine import Combination, averages, combine, combined
from diffjax.search.descend import Target, descend
from diffjax.search.evolve import Found, Space, evolve
from diffjax.search.free import Free, free
from diffjax.search.population import errors, member, population, reference, rms
from diffjax.search.unified import BASELINES, Choice, usf

__all__ = [
  'BASELINES',
  'Choice',
  'Combination',
  'Found',
  'Free',
  'Space',
  'Target',
  'averages',
  'boss',
  'combine',
  'combined',
  'descend',
  'errors',
  'evolve',
  'free',
  'member',
  'population',
  'reference',
  'rms',
  'step_costs',
  'usf',
]
