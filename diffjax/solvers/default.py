"""The solver to take when nothing else is known: chosen on some targets, judged on others in experiments/tables."""

from diffjax.process import Process
from diffjax.solvers.grids import noise_share
from diffjax.solvers.table import Table
from diffjax.solvers.trig import trig_adams

__all__ = ['recommended']


def recommended(process: Process, nfe: int, data_std: float = 0.5) -> Table:
  """`trig_adams` of two values on the grid `noise_share`, for any process.

  The grid is a little coarser near the data than the angle's own: data_std 1.4 times as large, power 1.5.

  Raises:
    ValueError: nfe is not a whole number of at least 1, or data_std is not positive.
  """
  ts = noise_share(process, nfe, data_std=1.4 * data_std, power=1.5)
  return trig_adams(process, ts, order=min(2, nfe), data_std=data_std)
