"""Bridges: processes between two laws, or between the two members of a pair."""

from diffjax.bridges.between import Between
from diffjax.bridges.interpolants import Interpolant, encoding_decoding, linear, regression, trigonometric
from diffjax.bridges.recipes import stochastic_interpolant

__all__ = [
  'Between',
  'Interpolant',
  'encoding_decoding',
  'linear',
  'regression',
  'stochastic_interpolant',
  'trigonometric',
]
