"""Guidance: transforms Denoiser -> Denoiser, which compose by calling."""

from diffjax.guidance.centred import centred
from diffjax.guidance.cfg import branches, cfg
from diffjax.guidance.cfgpp import cfgpp
from diffjax.guidance.classifier import classifier_guidance
from diffjax.guidance.covariance import with_covariance
from diffjax.guidance.mean_reverting import mean_reverting
from diffjax.guidance.moment_heads import with_moments
from diffjax.guidance.property_energy import property_energy
from diffjax.guidance.prox import prox
from diffjax.guidance.steered import replaced, steered
from diffjax.guidance.thresholds import dynamic_threshold, threshold
from diffjax.guidance.tilt import pushed, slope_of, tilt
from diffjax.guidance.timeshift import time_shift
from diffjax.guidance.transform import chain, cost
from diffjax.guidance.universal import universal

__all__ = [
  'branches',
  'cfg',
  'centred',
  'cfgpp',
  'chain',
  'classifier_guidance',
  'cost',
  'dynamic_threshold',
  'mean_reverting',
  'prox',
  'property_energy',
  'pushed',
  'replaced',
  'slope_of',
  'steered',
  'threshold',
  'tilt',
  'time_shift',
  'universal',
  'with_covariance',
  'with_moments',
]
