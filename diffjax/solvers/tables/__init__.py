"""Solvers that are tables of numbers, one file a family. `__all__` lists the names that a config may give a solver."""

from diffjax.solvers.tables import (
  adams,
  basic,
  deis,
  flow_sde,
  momentum,
  multistep,
  pndm,
  predictors,
  rungekutta,
  singlestep,
  stochastic,
  trig,
)
from diffjax.solvers.tables.adams import *
from diffjax.solvers.tables.basic import *
from diffjax.solvers.tables.deis import *
from diffjax.solvers.tables.flow_sde import *
from diffjax.solvers.tables.momentum import *
from diffjax.solvers.tables.multistep import *
from diffjax.solvers.tables.pndm import *
from diffjax.solvers.tables.predictors import *
from diffjax.solvers.tables.rungekutta import *
from diffjax.solvers.tables.singlestep import *
from diffjax.solvers.tables.stochastic import *
from diffjax.solvers.tables.trig import *

# tables that take (process, ts, these statistics of a trained network)
with_statistics = {'analytic_dpm': 'energies', 'dpm_v3': 'linear'}

__all__: list[str] = []
__all__ += basic.__all__
__all__ += stochastic.__all__
__all__ += multistep.__all__
__all__ += adams.__all__
__all__ += singlestep.__all__
__all__ += deis.__all__
__all__ += pndm.__all__
__all__ += rungekutta.__all__
__all__ += momentum.__all__
__all__ += predictors.__all__
__all__ += trig.__all__
__all__ += ['flow_sde']
