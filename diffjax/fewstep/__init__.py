"""Few-step generation: students of a teacher, or of data alone, that need one or a few evaluations a sample."""

from diffjax.fewstep.adversarial_training import adversarial_consistency_training
from diffjax.fewstep.blockwise import blockwise_flow_matching
from diffjax.fewstep.boot import boot
from diffjax.fewstep.conditional import conditional_consistency
from diffjax.fewstep.consistency import consistency_distillation, consistency_training, improved_consistency_training
from diffjax.fewstep.consistency_bridge import (
  bridge_denoising,
  consistency_bridge_distillation,
  consistency_bridge_training,
)
from diffjax.fewstep.continuous import continuous_consistency
from diffjax.fewstep.diffusion_gan import diffusion_gan
from diffjax.fewstep.distil_back import distil_back
from diffjax.fewstep.distribution_matching import distribution_matching
from diffjax.fewstep.distribution_matching_2 import distribution_matching_2
from diffjax.fewstep.echo_distillation import echo_distillation
from diffjax.fewstep.em_distillation import em_distillation
from diffjax.fewstep.fair import fair_latent_distillation
from diffjax.fewstep.guided import guided
from diffjax.fewstep.key_points import key_points
from diffjax.fewstep.latent import latent_consistency, reward_guided_latent_consistency
from diffjax.fewstep.mean_flow import mean_flow
from diffjax.fewstep.multi_student import multi_student
from diffjax.fewstep.pairwise import pairwise_sample_optimisation
from diffjax.fewstep.prodiff import prodiff
from diffjax.fewstep.progressive import progressive
from diffjax.fewstep.reflow import reflow
from diffjax.fewstep.reinforced import rl_consistency
from diffjax.fewstep.score_distillation import consistent_3d, score_distillation, variational_score_distillation
from diffjax.fewstep.score_forgetting import score_forgetting
from diffjax.fewstep.score_identity import score_identity
from diffjax.fewstep.self_forcing import self_forcing
from diffjax.fewstep.shortcut import shortcut
from diffjax.fewstep.stochastic import stochastic_consistency
from diffjax.fewstep.super_resolution import time_aware_super_resolution
from diffjax.fewstep.trajectory import consistency_trajectory
from diffjax.fewstep.ufogen import ufogen

__all__ = [
  'adversarial_consistency_training',
  'blockwise_flow_matching',
  'boot',
  'bridge_denoising',
  'conditional_consistency',
  'consistency_bridge_distillation',
  'consistency_bridge_training',
  'consistency_distillation',
  'consistency_training',
  'consistency_trajectory',
  'consistent_3d',
  'continuous_consistency',
  'diffusion_gan',
  'distil_back',
  'distribution_matching',
  'distribution_matching_2',
  'echo_distillation',
  'em_distillation',
  'fair_latent_distillation',
  'guided',
  'improved_consistency_training',
  'key_points',
  'latent_consistency',
  'mean_flow',
  'pairwise_sample_optimisation',
  'multi_student',
  'prodiff',
  'progressive',
  'reflow',
  'reward_guided_latent_consistency',
  'rl_consistency',
  'score_forgetting',
  'score_identity',
  'shortcut',
  'stochastic_consistency',
  'ufogen',
  'score_distillation',
  'score_forgetting',
  'score_identity',
  'reward_guided_latent_consistency',
  'rl_consistency',
  'self_forcing',
  'shortcut',
  'time_aware_super_resolution',
  'variational_score_distillation',
]
