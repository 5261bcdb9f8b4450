"""Few-step generation: students of a teacher, or of data alone, that need one or a few evaluations a sample."""

from diffjax.fewstep.adversarial_training import adversarial_consistency_training
from diffjax.fewstep.consistency import (
  consistency_distillation,
  consistency_training,
  improved_consistency_training,
)
from diffjax.fewstep.continuous import continuous_consistency
from diffjax.fewstep.diffusion_gan import diffusion_gan
from diffjax.fewstep.guided import guided
from diffjax.fewstep.key_points import key_points
from diffjax.fewstep.mean_flow import mean_flow
from diffjax.fewstep.prodiff import prodiff
from diffjax.fewstep.progressive import progressive
from diffjax.fewstep.reflow import reflow
from diffjax.fewstep.shortcut import shortcut
from diffjax.fewstep.stochastic import stochastic_consistency
from diffjax.fewstep.trajectory import consistency_trajectory
from diffjax.fewstep.ufogen import ufogen

__all__ = [
  'adversarial_consistency_training',
  'consistency_distillation',
  'consistency_trajectory',
  'consistency_training',
  'continuous_consistency',
  'diffusion_gan',
  'guided',
  'improved_consistency_training',
  'key_points',
  'mean_flow',
  'prodiff',
  'progressive',
  'reflow',
  'shortcut',
  'stochastic_consistency',
  'ufogen',
]
