"""Solvers as tables, and the one scan that runs them. `tables` lists the names a config may give a solver."""

from diffjax.solvers import (
  adams,
  deis,
  grids,
  momentum,
  multistep,
  noise,
  onestep,
  pndm,
  predictors,
  rewrite,
  rungekutta,
  singlestep,
  stochastic,
  trig,
)
from diffjax.solvers.adams import exponential_adams
from diffjax.solvers.adaptive import Solution, dopri5, dpm_adaptive
from diffjax.solvers.analytic import analytic_dpm, analytic_grid
from diffjax.solvers.corrector import predictor_corrector
from diffjax.solvers.default import recommended
from diffjax.solvers.deis import deis_rhoab, deis_rhork, deis_tab
from diffjax.solvers.dpm_v3 import dpm_v3
from diffjax.solvers.forms import in_data_form
from diffjax.solvers.heads import with_moments
from diffjax.solvers.mixed import gms
from diffjax.solvers.moments import npr_dpm, sn_dpm
from diffjax.solvers.momentum import ghvb, heavy_ball, nesterov
from diffjax.solvers.multistep import dpmpp_2m, dpmpp_3m, dpmpp_3m_compat, unipc
from diffjax.solvers.onestep import ddim, ddpm, ddpm_large, euler, euler_maruyama, heun
from diffjax.solvers.pndm import f_pndm, ipndm, s_pndm
from diffjax.solvers.predictors import ancestral, reverse_diffusion
from diffjax.solvers.rewrite import churn, denoise_to_zero, dualfast, pair_form
from diffjax.solvers.rungekutta import midpoint, rk4
from diffjax.solvers.sample import Solver, path, sample
from diffjax.solvers.singlestep import dpm_fast, dpm_solver, dpmpp_2s, dpmpp_3s
from diffjax.solvers.steps import churned_transfer, heun_transfer, renoise, transfer
from diffjax.solvers.stochastic import sde_adams, sde_dpm, sde_dpmpp_2m
from diffjax.solvers.table import Rows, Table, pad
from diffjax.solvers.tape import Tape
from diffjax.solvers.teleport import leap, teleport
from diffjax.solvers.trig import trig_adams

_rooms = (onestep, stochastic, multistep, adams, singlestep, deis, pndm, rungekutta, momentum, predictors, trig)
tables = tuple(name for room in _rooms for name in room.__all__)
informed = {'analytic_dpm': 'energies', 'dpm_v3': 'linear'}  # tables that take (process, ts, these statistics)
stepped = ('predictor_corrector', 'sn_dpm', 'npr_dpm', 'gms')  # builders of solvers with a step of their own
transforms = (*momentum.transforms, *rewrite.__all__, 'in_data_form')  # table -> table; churn takes the builder

__all__ = [
  'Rows',
  'Solution',
  'Solver',
  'Table',
  'Tape',
  'analytic_dpm',
  'analytic_grid',
  'ancestral',
  'churn',
  'churned_transfer',
  'ddim',
  'ddpm',
  'ddpm_large',
  'deis_rhoab',
  'deis_rhork',
  'deis_tab',
  'denoise_to_zero',
  'dopri5',
  'dpm_adaptive',
  'dpm_fast',
  'dpm_solver',
  'dpm_v3',
  'dpmpp_2m',
  'dpmpp_2s',
  'dpmpp_3m',
  'dpmpp_3m_compat',
  'dpmpp_3s',
  'dualfast',
  'euler',
  'euler_maruyama',
  'exponential_adams',
  'f_pndm',
  'ghvb',
  'gms',
  'grids',
  'heavy_ball',
  'heun',
  'heun_transfer',
  'informed',
  'in_data_form',
  'ipndm',
  'leap',
  'midpoint',
  'nesterov',
  'noise',
  'npr_dpm',
  'pad',
  'pair_form',
  'path',
  'predictor_corrector',
  'renoise',
  'reverse_diffusion',
  'recommended',
  'rk4',
  's_pndm',
  'sample',
  'sde_adams',
  'sde_dpm',
  'sde_dpmpp_2m',
  'sn_dpm',
  'stepped',
  'tables',
  'teleport',
  'transfer',
  'transforms',
  'trig_adams',
  'unipc',
  'with_moments',
]
