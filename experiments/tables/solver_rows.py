"""The rows of the solver table: every public sampler with the settings of its papers, and the grids under them."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffjax import solvers
from diffjax.errors import InputError
from diffjax.process import Process
from diffjax.solvers import grids

__all__ = ['GRIDS', 'OURS', 'ROWS', 'Row', 'chosen', 'configurations', 'laid_out']

GRIDS = ('uniform', 'quadratic', 'cosine', 'uniform_lam', 'karras', 'noise_share')
OURS = 'recommended'
HEADED = ('sn_dpm', 'npr_dpm', 'gms')  # need a denoiser that tells moments, and at alpha = 0 the variance of the data

Known = Callable[[str], Any]  # 'linear', 'energies' or 'variance' -> that of the target


class Row(NamedTuple):
  """A sampler of `diffjax.solvers` with its options, and what is done to its table.

  group: 'published'; 'informed' by statistics or heads of the target; 'ours', the default at other orders.
  """

  sampler: str
  options: dict[str, Any]
  then: Callable[..., Any] | None = None

  @property
  def headed(self) -> bool:
    """Whether the sampler needs a second head."""
    return self.sampler in HEADED

  @property
  def group(self) -> str:
    """The part of the table that the row stands in."""
    if self.headed or self.sampler in solvers.with_statistics:
      return 'informed'
    return 'ours' if self.sampler == 'trig_adams' else 'published'

  def build(self, process: Process, ts: np.ndarray, known: Known | None) -> Any:
    """The solver on this grid; `known` is asked only by an informed one."""
    given, options = (), self.options
    if self.group == 'informed':
      assert known is not None
      if self.headed:
        options = dict(options, data_var=known('variance'))
      else:
        given = (known(solvers.with_statistics[self.sampler]),)
    made = getattr(solvers, self.sampler)(process, ts, *given, **options)
    return made if self.then is None else self.then(made)


def _row(sampler: str, then: Callable[..., Any] | None = None, **options: Any) -> Row:
  return Row(sampler, options, then)


ROWS = {
  'DDIM': _row('ddim'),
  'DDPM': _row('ddpm'),
  'DDPM, large variance': _row('ddpm_large'),
  'ancestral': _row('ancestral'),
  'reverse diffusion': _row('reverse_diffusion'),
  'predictor-corrector': _row('predictor_corrector', batch_coupled=True),
  'Euler': _row('euler'),
  'Euler-Maruyama': _row('euler_maruyama'),
  'SDE of any noise': _row('flow_sde'),
  'Heun (EDM)': _row('heun'),
  'Heun in t': _row('heun_in_t'),
  'midpoint': _row('midpoint'),
  'RK4': _row('rk4'),
  'DPM-Solver-2': _row('dpm_solver', order=2),
  'DPM-Solver-3': _row('dpm_solver', order=3),
  'DPM-Solver-fast': _row('dpm_fast'),
  'DPM-Solver++(2S)': _row('dpmpp_2s'),
  'DPM-Solver++(3S)': _row('dpmpp_3s'),
  'DPM-Solver++(2M)': _row('dpmpp_2m'),
  'DPM-Solver++(3M)': _row('dpmpp_3m'),
  'DPM-Solver++(3M), official': _row('dpmpp_3m_compat'),
  'SDE-DPM-Solver': _row('sde_dpm'),
  'SDE-DPM-Solver++(2M)': _row('sde_dpmpp_2m'),
  'SDE Adams 3': _row('sde_adams', order=3),
  'exponential Adams 3': _row('exponential_adams'),
  'exponential Adams 3, noise': _row('exponential_adams', form='eps'),
  'UniPC-2': _row('unipc', order=2),
  'UniPC-2, B1': _row('unipc', order=2, b1=True),
  'UniPC-3': _row('unipc', order=3),
  'DEIS tAB1': _row('deis_tab', order=1),
  'DEIS tAB2': _row('deis_tab', order=2),
  'DEIS tAB3': _row('deis_tab', order=3),
  'DEIS rhoAB3': _row('deis_rhoab', order=3),
  'DEIS rho-Heun': _row('deis_rhork', tableau='heun'),
  'iPNDM': _row('ipndm'),
  'S-PNDM': _row('s_pndm'),
  'F-PNDM': _row('f_pndm'),
  'GHVB 1.8': _row('ghvb', order=1.8),
  'GHVB 2.5': _row('ghvb', order=2.5),
  'DPM-Solver++(2M), heavy ball .8': _row('dpmpp_2m', lambda table: solvers.heavy_ball(table, 0.8)),
  'Adams in the angle 2': _row('trig_adams'),
  'Adams in the angle 3': _row('trig_adams', order=3),
  'Adams in the angle 4, at the end 2': _row('trig_adams', order=4, final_order=2),
  'DPM-Solver-v3': _row('dpm_v3'),
  'DPM-Solver-v3, pseudo': _row('dpm_v3', pseudo=True, lower_final=False),
  'Analytic-DDPM': _row('analytic_dpm'),
  'Analytic-DDIM': _row('analytic_dpm', eta=0.0),
  'SN-DDPM': _row('sn_dpm'),
  'SN-DDIM': _row('sn_dpm', eta=0.0),
  'NPR-DDPM': _row('npr_dpm'),
  'NPR-DDIM': _row('npr_dpm', eta=0.0),
  'GMS': _row('gms'),
  'GMS, weights 1/3': _row('gms', free_weight=False),
}


def chosen(names: str | None = None, informed: bool = True) -> list[str]:
  """The rows named in a text, with semicolons between; all where there is none.

  Raises:
    InputError: one is not there, or is informed and those are not wanted.
  """
  among = [name for name, row in ROWS.items() if informed or row.group != 'informed']
  wanted = among if names is None else names.split(';')
  for name in wanted:
    if name not in among:
      raise InputError(f'solvers: got {name!r}; allowed: {"; ".join(among)}')
  return wanted


def laid_out(row: Row, process: Process, grid: str, nfe: int, known: Known | None = None) -> Any:
  """The solver with the most steps that needs at most `nfe` evaluations; None where the method cannot have so few."""
  for steps in range(nfe, 0, -1):
    ts = np.array(getattr(grids, grid)(process, steps))
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of float32's rounding: the exact cells run in float64
      try:
        solver = row.build(process, ts, known)
      except InputError:  # another kind of process, no start from alpha = 0, or too few steps for its order
        return None
    if solver.nfe <= nfe:
      return solver
  return None


def configurations(process: Process, nfe: int, names: list[str], known: Known | None = None, ours: Any = None) -> dict:
  """(solver, grid) -> the solver, for all of these rows that can be laid out, and the recommended one, or `ours`."""
  found = {}
  for grid in GRIDS:
    for name in names:
      if (solver := laid_out(ROWS[name], process, grid, nfe, known)) is not None:
        found[name, grid] = solver
  return found | {(OURS, 'its own'): ours or solvers.recommended(process, nfe)}
