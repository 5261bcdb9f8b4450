"""Posterior sampling: what was seen of a sample, and the laws of what it was; one method a file."""

from diffjax.inverse.image_operators import blur, downsample, fourier, grey
from diffjax.inverse.observation import Observation, gaussian, observation, observe, poisson, unseen
from diffjax.inverse.operators import Operator, compose, linear, mask, matrix, projection

__all__ = [
  'Observation',
  'Operator',
  'blur',
  'compose',
  'downsample',
  'fourier',
  'gaussian',
  'grey',
  'linear',
  'mask',
  'matrix',
  'observation',
  'observe',
  'poisson',
  'projection',
  'unseen',
]
