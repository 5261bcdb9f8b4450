"""Losses: (roles, batch, key) -> (one value an example, aux).

Their time laws, weights and couplings are named in `losses.times`, `losses.weights` and `losses.couplings`.
"""

from diffjax.losses.denoising import denoising
from diffjax.losses.fokker_planck import fokker_planck
from diffjax.losses.high_order import high_order
from diffjax.losses.local_error import locally_regularised
from diffjax.losses.modalities import modalities
from diffjax.losses.moments import moments
from diffjax.losses.score_matching import implicit, sliced

__all__ = [
  'denoising',
  'fokker_planck',
  'high_order',
  'implicit',
  'locally_regularised',
  'modalities',
  'moments',
  'sliced',
]
