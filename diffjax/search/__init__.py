"""Search for solvers: many tables in one program, evolution, dynamic programming and gradient descent over them."""

from diffjax.search.boss import boss, step_costs
from diffjax.search.descend import Target, descend
from diffjax.search.evolve import Found, Space, evolve
from diffjax.search.free import Free, free
from diffjax.search.population import errors, member, population, reference, rms
from diffjax.search.unified import BASELINES, Choice, usf

__all__ = [
  'BASELINES',
  'Choice',
  'Found',
  'Free',
  'Space',
  'Target',
  'boss',
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
