"""Few-step generation: students that jump along the probability-flow ODE. `__all__` holds the recipes."""

from diffjax.fewstep.consistency import (
  consistency_distillation,
  consistency_training,
  improved_consistency_training,
)
from diffjax.fewstep.continuous import continuous_consistency
from diffjax.fewstep.mean_flow import mean_flow
from diffjax.fewstep.shortcut import shortcut
from diffjax.fewstep.trajectory import consistency_trajectory

__all__ = [
  'consistency_distillation',
  'consistency_trajectory',
  'consistency_training',
  'continuous_consistency',
  'improved_consistency_training',
  'mean_flow',
  'shortcut',
]
