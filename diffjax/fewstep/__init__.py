"""Few-step generation: students of a teacher, or of data alone, that need one or a few evaluations a sample."""

from diffjax.fewstep.boot import boot
from diffjax.fewstep.consistency import (
  consistency_distillation,
  consistency_training,
  improved_consistency_training,
)
from diffjax.fewstep.continuous import continuous_consistency
from diffjax.fewstep.distil_back import distil_back
from diffjax.fewstep.distribution_matching import distribution_matching
from diffjax.fewstep.em_distillation import em_distillation
from diffjax.fewstep.fair import fair_latent_distillation
from diffjax.fewstep.guided import guided
from diffjax.fewstep.latent import latent_consistency, reward_guided_latent_consistency
from diffjax.fewstep.mean_flow import mean_flow
from diffjax.fewstep.pairwise import pairwise_sample_optimisation
from diffjax.fewstep.prodiff import prodiff
from diffjax.fewstep.progressive import progressive
from diffjax.fewstep.reflow import reflow
from diffjax.fewstep.reinforced import rl_consistency
from diffjax.fewstep.score_forgetting import score_forgetting
from diffjax.fewstep.score_identity import score_identity
from diffjax.fewstep.shortcut import shortcut
from diffjax.fewstep.trajectory import consistency_trajectory

__all__ = [
  'boot',
  'consistency_distillation',
  'consistency_trajectory',
  'consistency_training',
  'continuous_consistency',
  'distil_back',
  'distribution_matching',
  'em_distillation',
  'fair_latent_distillation',
  'guided',
  'improved_consistency_training',
  'latent_consistency',
  'mean_flow',
  'pairwise_sample_optimisation',
  'prodiff',
  'progressive',
  'reflow',
  'score_forgetting',
  'score_identity',
  'reward_guided_latent_consistency',
  'rl_consistency',
  'shortcut',
]
