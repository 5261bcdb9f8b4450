"""What some solvers want to know of a network and its data: estimated once, saved beside a run, reused."""

from diffjax.statistics.closed import isotropic, linear_form
from diffjax.statistics.estimate import energies, linear_terms
from diffjax.statistics.files import KINDS, load, save
from diffjax.statistics.moments import spread
from diffjax.statistics.pca import gaussian
from diffjax.statistics.types import Gaussian, ModelStatistics, NoiseEnergy, Spread

NEUTRAL = {'energies': isotropic, 'linear': linear_form}
"""Stand-ins that know no data, by kind: a solver can be laid out on them to check its options."""

__all__ = [
  'NoiseEnergy',
  'Gaussian',
  'KINDS',
  'ModelStatistics',
  'NEUTRAL',
  'Spread',
  'energies',
  'gaussian',
  'isotropic',
  'linear_form',
  'linear_terms',
  'load',
  'save',
  'spread',
]
