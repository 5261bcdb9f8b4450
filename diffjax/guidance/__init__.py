"""Guidance: transforms Denoiser -> Denoiser, which compose by calling."""

from diffjax.guidance.apg import apg
from diffjax.guidance.autoguidance import autoguidance
from diffjax.guidance.centred import centred
from diffjax.guidance.cfg import branches, cfg
from diffjax.guidance.cfg_zero import cfg_zero
from diffjax.guidance.cfgpp import cfgpp
from diffjax.guidance.classifier import classifier_guidance
from diffjax.guidance.converted import converted
from diffjax.guidance.covariance import with_covariance
from diffjax.guidance.egsde import egsde, low_pass
from diffjax.guidance.elucd import elucd, elucd_kick
from diffjax.guidance.eraser import attentive_eraser
from diffjax.guidance.experts import experts, log_prob_of
from diffjax.guidance.feedback import feedback
from diffjax.guidance.gradient_free import gradient_free
from diffjax.guidance.high_frequency import detail, high_frequency
from diffjax.guidance.mean_reverting import mean_reverting
from diffjax.guidance.mix import mix, mixed
from diffjax.guidance.moment_heads import with_moments
from diffjax.guidance.observed_series import mean_energy, observed_ddpm, observed_series, quantile_energy, refined
from diffjax.guidance.perturbed import perturbed_attention
from diffjax.guidance.plug_and_play import plug_and_play
from diffjax.guidance.products import annealed, product
from diffjax.guidance.property_energy import property_energy
from diffjax.guidance.protected import protected
from diffjax.guidance.prox import prox
from diffjax.guidance.rectified_gradient import rectified_gradient
from diffjax.guidance.rescale import cfg_rescale
from diffjax.guidance.sine import sine
from diffjax.guidance.steered import replaced, steered
from diffjax.guidance.thresholds import dynamic_threshold, threshold
from diffjax.guidance.tilt import pushed, slope_of, tilt
from diffjax.guidance.timeshift import time_shift
from diffjax.guidance.transform import chain, cost
from diffjax.guidance.universal import universal

__all__ = [
  'annealed',
  'apg',
  'attentive_eraser',
  'autoguidance',
  'branches',
  'centred',
  'cfg',
  'cfg_rescale',
  'cfg_zero',
  'cfgpp',
  'chain',
  'classifier_guidance',
  'converted',
  'cost',
  'detail',
  'dynamic_threshold',
  'egsde',
  'elucd',
  'elucd_kick',
  'experts',
  'feedback',
  'gradient_free',
  'high_frequency',
  'log_prob_of',
  'low_pass',
  'mean_energy',
  'mean_reverting',
  'mix',
  'mixed',
  'observed_ddpm',
  'observed_series',
  'perturbed_attention',
  'plug_and_play',
  'protected',
  'product',
  'property_energy',
  'prox',
  'pushed',
  'quantile_energy',
  'rectified_gradient',
  'refined',
  'replaced',
  'sine',
  'slope_of',
  'steered',
  'threshold',
  'tilt',
  'time_shift',
  'universal',
  'with_covariance',
  'with_moments',
]
