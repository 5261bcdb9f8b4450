"""Losses: (roles, batch, key) -> (one value an example, aux).

Their time laws and weights are named in `losses.times` and `losses.weights`.
"""

from diffjax.losses.denoising import denoising
from diffjax.losses.modalities import modalities
from diffjax.losses.moments import moments

__all__ = ['denoising', 'modalities', 'moments']
