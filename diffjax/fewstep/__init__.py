"""Few-step generation: students of a teacher, or of data alone, that need one or a few evaluations a sample."""

from diffjax.fewstep.guided import guided
from diffjax.fewstep.prodiff import prodiff
from diffjax.fewstep.progressive import progressive
from diffjax.fewstep.reflow import reflow

__all__ = [
  'guided',
  'prodiff',
  'progressive',
  'reflow',
]
