"""Solvers as tables, and the one scan that runs them. `tables.__all__` lists the names a config may give a solver."""

from diffjax.solvers import data_form, grids, noise, one_step, own, table, tables, transforms
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.data_form import *
from diffjax.solvers.one_step import *
from diffjax.solvers.own import *
from diffjax.solvers.recurrence import recurrent
from diffjax.solvers.restart import restart
from diffjax.solvers.sample import Solver, sample, trajectory
from diffjax.solvers.start import first_time, from_source, start, start_time
from diffjax.solvers.table import *
from diffjax.solvers.tables import *
from diffjax.solvers.tables.analytic import analytic_dpm, analytic_grid
from diffjax.solvers.tables.dpm_v3 import dpm_v3
from diffjax.solvers.tables.momentum import heavy_ball, nesterov
from diffjax.solvers.tables.trig import recommended
from diffjax.solvers.transforms import *

with_statistics = tables.with_statistics
# builders of solvers with a step of their own
own_step = ('predictor_corrector', 'sn_dpm', 'npr_dpm', 'full_dpm', 'gms')
# churn, recurrent and restart take the builder
table_transforms = (*tables.momentum.transforms, *transforms.__all__, *data_form.__all__, 'recurrent', 'restart')

__all__ = [
  'Solver',
  'TableBuilder',
  'analytic_dpm',
  'analytic_grid',
  'dpm_v3',
  'first_time',
  'from_source',
  'grids',
  'heavy_ball',
  'nesterov',
  'noise',
  'own_step',
  'trajectory',
  'recommended',
  'recurrent',
  'restart',
  'sample',
  'start',
  'start_time',
  'table_transforms',
  'tables',
  'with_statistics',
]
__all__ += data_form.__all__
__all__ += one_step.__all__
__all__ += own.__all__
__all__ += table.__all__
__all__ += tables.__all__
__all__ += transforms.__all__
