"""Posterior sampling: what was seen of a sample, and the laws of what it was; one method a file."""

from diffjax.inverse.active import Looked, active, disagreement
from diffjax.inverse.afdps import afdps, afdps_start
from diffjax.inverse.daps import daps
from diffjax.inverse.dps import dps, dps_scale
from diffjax.inverse.flows import flowchef, flowdps, flowdps_steps
from diffjax.inverse.image_operators import blur, downsample, fourier, grey
from diffjax.inverse.observation import Observation, gaussian, observation, observe, poisson, unseen
from diffjax.inverse.operators import Operator, compose, linear, mask, matrix, projection
from diffjax.inverse.pigdm import pigdm
from diffjax.inverse.proximal import proximal
from diffjax.inverse.replacement import replacement

__all__ = [
  'Looked',
  'Observation',
  'Operator',
  'active',
  'afdps',
  'afdps_start',
  'blur',
  'compose',
  'daps',
  'disagreement',
  'downsample',
  'dps',
  'dps_scale',
  'flowchef',
  'flowdps',
  'flowdps_steps',
  'fourier',
  'gaussian',
  'grey',
  'linear',
  'mask',
  'matrix',
  'observation',
  'observe',
  'pigdm',
  'poisson',
  'projection',
  'proximal',
  'replacement',
  'unseen',
]
