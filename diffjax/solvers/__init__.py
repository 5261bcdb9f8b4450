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
  rungekutta,
  singlestep,
  stochastic,
)
from diffjax.solvers.adams import exponential_adams
from diffjax.solvers.adaptive import Solution, dopri5, dpm_adaptive
from diffjax.solvers.deis import deis_rhoab, deis_rhork, deis_tab
from diffjax.solvers.momentum import ghvb, heavy_ball, nesterov
from diffjax.solvers.multistep import dpmpp_2m, dpmpp_3m, dpmpp_3m_compat, unipc
from diffjax.solvers.onestep import ddim, ddpm, ddpm_large, euler, euler_maruyama, heun
from diffjax.solvers.pndm import f_pndm, ipndm, s_pndm
from diffjax.solvers.rungekutta import midpoint, rk4
from diffjax.solvers.sample import Solver, path, sample
from diffjax.solvers.singlestep import dpm_fast, dpm_solver, dpmpp_2s, dpmpp_3s
from diffjax.solvers.steps import churned_transfer, heun_transfer, renoise, transfer
from diffjax.solvers.stochastic import sde_dpm, sde_dpmpp_2m
from diffjax.solvers.table import Rows, Table, pad
from diffjax.solvers.tape import Tape

_rooms = (onestep, stochastic, multistep, adams, singlestep, deis, pndm, rungekutta, momentum)
tables = tuple(name for room in _rooms for name in room.__all__)
transforms = momentum.transforms  # table -> table

__all__ = [
  'Rows',
  'Solution',
  'Solver',
  'Table',
  'Tape',
  'churned_transfer',
  'ddim',
  'ddpm',
  'ddpm_large',
  'deis_rhoab',
  'deis_rhork',
  'deis_tab',
  'dopri5',
  'dpm_adaptive',
  'dpm_fast',
  'dpm_solver',
  'dpmpp_2m',
  'dpmpp_2s',
  'dpmpp_3m',
  'dpmpp_3m_compat',
  'dpmpp_3s',
  'euler',
  'euler_maruyama',
  'exponential_adams',
  'f_pndm',
  'ghvb',
  'grids',
  'heavy_ball',
  'heun',
  'heun_transfer',
  'ipndm',
  'midpoint',
  'nesterov',
  'noise',
  'pad',
  'path',
  'renoise',
  'rk4',
  's_pndm',
  'sample',
  'sde_dpm',
  'sde_dpmpp_2m',
  'tables',
  'transfer',
  'transforms',
  'unipc',
]
