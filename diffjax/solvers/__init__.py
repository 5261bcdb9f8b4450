"""Solvers as tables, and the one scan that runs them. `tables` lists the names a config may give a solver."""

from diffjax.solvers import grids, multistep, onestep
from diffjax.solvers.multistep import dpmpp_2m, unipc
from diffjax.solvers.onestep import ddim, ddpm, euler, euler_maruyama, heun
from diffjax.solvers.sample import Solver, path, sample
from diffjax.solvers.steps import churned_transfer, heun_transfer, renoise, transfer
from diffjax.solvers.table import Rows, Table, pad
from diffjax.solvers.tape import Tape

tables = (*onestep.__all__, *multistep.__all__)

__all__ = [
  'Rows',
  'Solver',
  'Table',
  'Tape',
  'churned_transfer',
  'ddim',
  'ddpm',
  'dpmpp_2m',
  'euler',
  'euler_maruyama',
  'grids',
  'heun',
  'heun_transfer',
  'pad',
  'path',
  'renoise',
  'sample',
  'tables',
  'transfer',
  'unipc',
]
