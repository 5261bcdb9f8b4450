"""Solvers with a step of their own, each in a file named by its method."""

from diffjax.solvers.own.adaptive import Solution, dopri5, dpm_adaptive
from diffjax.solvers.own.dpm_ot import dpm_ot, transport
from diffjax.solvers.own.full_dpm import full_dpm
from diffjax.solvers.own.gms import gms
from diffjax.solvers.own.picard import Parallel, picard
from diffjax.solvers.own.predictor_corrector import predictor_corrector
from diffjax.solvers.own.sada import sada
from diffjax.solvers.own.sn_dpm import npr_dpm, sn_dpm
from diffjax.solvers.own.teleport import leap, teleport

__all__ = [
  'Parallel',
  'Solution',
  'dopri5',
  'dpm_adaptive',
  'dpm_ot',
  'full_dpm',
  'gms',
  'leap',
  'npr_dpm',
  'picard',
  'predictor_corrector',
  'sada',
  'sn_dpm',
  'teleport',
  'transport',
]
