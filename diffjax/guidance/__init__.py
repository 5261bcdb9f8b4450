"""Guidance: transforms Denoiser -> Denoiser, which compose by calling."""

from diffjax.guidance.cfg import branches, cfg
from diffjax.guidance.cfgpp import cfgpp
from diffjax.guidance.classifier import classifier_guidance
from diffjax.guidance.egsde import egsde, low_pass
from diffjax.guidance.high_frequency import detail, high_frequency
from diffjax.guidance.mean_reverting import mean_reverting
from diffjax.guidance.moment_heads import with_moments
from diffjax.guidance.observed_series import mean_energy, observed_ddpm, observed_series, quantile_energy, refined
from diffjax.guidance.plug_and_play import plug_and_play
from diffjax.guidance.protected import protected
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
  'cfgpp',
  'chain',
  'classifier_guidance',
  'cost',
  'detail',
  'dynamic_threshold',
  'egsde',
  'high_frequency',
  'low_pass',
  'mean_reverting',
  'mean_energy',
  'observed_ddpm',
  'observed_series',
  'plug_and_play',
  'protected',
  'prox',
  'pushed',
  'quantile_energy',
  'refined',
  'replaced',
  'slope_of',
  'steered',
  'threshold',
  'tilt',
  'time_shift',
  'universal',
  'with_moments',
]
