"""The solver table on a few cells: measured once, resumed, judged; and no public sampler is missing from it."""

import json

import numpy as np
import pytest

from diffjax import schedules, solvers, statistics
from diffjax.exact import gaussian
from experiments.tables import solver_cells as cells
from experiments.tables import solver_rows as rows
from experiments.tables import targets
from experiments.tables.published import published
from experiments.tables.solver_report import report

NAMES = ['DDIM', 'DDPM']


@pytest.fixture
def small(monkeypatch):
  """One grid, one Gaussian, one process, 16 starts."""
  monkeypatch.setattr(rows, 'GRIDS', ('uniform',))
  monkeypatch.setattr(cells, 'PROCESSES', {'VP linear': 'vp_linear'})
  monkeypatch.setattr(cells, 'STARTS', 16)
  monkeypatch.setattr(cells, 'CHUNK', 2)
  monkeypatch.setattr(targets, 'judged', lambda: {'Gaussian': gaussian([0.5, 0.0], [0.3, 0.01])})


def test_every_public_sampler_is_a_row():
  assert {row.sampler for row in rows.ROWS.values()} == {
    *solvers.tables.__all__,
    *solvers.with_statistics,
    *solvers.own_step,
  } - {'full_dpm'}  # which asks for the Jacobian of a denoiser
  assert all(rows.ROWS[name].group == 'informed' for name in ('DPM-Solver-v3', 'Analytic-DDIM', 'NPR-DDPM', 'GMS'))


@pytest.mark.slow
def test_cells_are_measured_once_and_resumed(small, tmp_path, monkeypatch):
  lines = cells.exact(tmp_path, (3,), NAMES)
  assert {(line['solver'], line['error'] is None) for line in lines} == {
    ('DDIM', False),
    ('DDPM', True),  # stochastic: no distance to the solution
    ('recommended', False),
  }
  with (tmp_path / 'exact.jsonl').open('a') as file:
    file.write('{"solver": "DD')  # killed while it wrote
  with monkeypatch.context() as patch:
    patch.setattr(cells, 'runs', lambda *a: pytest.fail('measured again'))
    assert len(cells.exact(tmp_path, (3,), NAMES)) == 3
  text = report(lines, 'error', (3,), tmp_path, 'Error')
  assert 'Default' in text and 'lower than each of the 1 published configurations' in text
  assert (tmp_path / 'error.csv').read_text().startswith('solver,grid,places,3') and (tmp_path / 'error.png').exists()


@pytest.mark.slow
def test_informed_solvers_and_own_steps_are_measured_too(small, tmp_path, monkeypatch):
  """With the statistics and moments of the target, and beside the others in the report."""
  monkeypatch.setattr(targets, 'EXAMPLES', 64)
  names = ['DPM-Solver-v3', 'Analytic-DDPM', 'SN-DDPM', 'NPR-DDIM', 'GMS', 'predictor-corrector', *NAMES]
  lines = cells.exact(tmp_path, (4,), names)
  assert {line['solver'] for line in lines} == {*names, 'recommended'}
  assert {line['evaluations'] for line in lines} == {4} and np.isfinite([line['distance'] for line in lines]).all()
  first, second = report(lines, 'distance', (4,), tmp_path, 'Distance').split('Informed by the target')
  for name in names:
    assert (f'| {name} |' in second) == (rows.ROWS[name].group == 'informed') != (f'| {name} |' in first)


def test_knowledge_of_a_gaussian_is_the_closed_form(x64):
  process, var = schedules.edm(), np.array([0.3, 0.01])
  known = targets.knowledge(gaussian([0.5, 0.0], var), process)
  linear, energies = known('linear'), known('energies')
  assert known('linear') is linear
  np.testing.assert_allclose(known('variance'), var)
  np.testing.assert_allclose(linear.l, 1 / (1 + var * np.exp(2 * linear.lam[:, None])), rtol=1e-9)
  part = var * np.exp(2 * energies.lam[:, None])
  np.testing.assert_allclose(1 - energies.value, np.mean(part / (1 + part), 1), rtol=1e-9)


def line(solver, grid, error, process='EDM'):
  return dict(solver=solver, grid=grid, error=error, target='one', process=process, nfe=4)


def test_the_verdict_is_on_published_configurations(tmp_path):
  """Not on the informed, nor on the default's other orders; a method of some processes is compared on those."""
  lines = [line(*row) for process in ('EDM', 'flow') for row in (
    ('recommended', 'its own', 0.2, process), ('DDIM', 'uniform', 0.5, process), ('DDIM', 'karras', 0.4, process),
    ('DPM-Solver-v3', 'karras', 0.1, process), ('Adams in the angle 3', 'karras', 0.15, process),
  )]  # fmt: skip
  text = report([*lines, line('Heun (EDM)', 'karras', 0.1)], 'error', (4,), tmp_path, 'Error')
  assert 'Default 0.2: lower than each of the 2 published configurations on all' in text
  assert 'DDIM on karras is the best with 0.4; lower than 0 of the 1 others' in text
  assert '| Heun (EDM) | karras | 0.1 | 0.1 | 1 of 2 | 0.2 |' in text
  worse = [dict(row, error=0.45) if row['solver'] == 'recommended' else row for row in lines]
  assert 'Default 0.45: NOT lower than each of the 2' in report(worse, 'error', (4,), tmp_path, 'Error')


def test_errors_are_distances_to_the_closed_flow(small, tmp_path):
  """DDIM's on the Gaussian, by its own linear recursion."""
  lines = {line['solver']: line for line in cells.exact(tmp_path, (3,), NAMES)}
  process, target = schedules.vp_linear(), gaussian([0.5, 0.0], [0.3, 0.01])
  x = start = float(process.schedule(process.t_max)[1]) * np.random.default_rng(0).standard_normal((16, 2))
  mean, var = np.array([0.5, 0.0]), np.array([0.3, 0.01])
  levels = rows.grids.at(process, np.linspace(1, 0, 4))
  for i in range(3):
    (a, b), (s, u) = levels[0][i : i + 2], levels[1][i : i + 2]
    total = a**2 * var + s**2
    x = b * (mean + a * var / total * (x - a * mean)) + u * s / total * (x - a * mean)
  a, s = levels[0][0], levels[1][0]
  end = mean + np.sqrt(var / (a**2 * var + s**2)) * (start - a * mean)
  want = np.sqrt(np.mean(np.sum((x - end) ** 2, 1))) / np.sqrt(np.trace(target.covariance()))
  assert lines['DDIM']['error'] == pytest.approx(want, rel=1e-4)
  assert json.loads((tmp_path / 'exact.jsonl').read_text().splitlines()[0])['floor'] > 0


def test_every_solver_can_be_laid_out():
  """On 20 evaluations of at least one grid and process; the published figures name what a run would need."""
  process = schedules.edm()
  given = {'linear': statistics.linear_form(process), 'energies': statistics.isotropic(process), 'variance': 1.0}
  found = rows.configurations(process, 20, list(rows.ROWS), given.__getitem__)
  assert {name for name, _ in found} == {*rows.ROWS, 'recommended'}
  assert all(solver.nfe <= 20 for solver in found.values())
  assert rows.laid_out(rows.ROWS['ancestral'], schedules.flow(), 'uniform', 4) is None  # no kernel on this process
  assert all('checkpoint' in line or '.p' in line for line in published().splitlines()[2:])


def test_chosen_rows():
  assert rows.chosen('GMS;DDIM') == ['GMS', 'DDIM'] and rows.chosen() == list(rows.ROWS)
  for text, informed in (('DDIM;DDIN', True), ('GMS', False)):
    with pytest.raises(ValueError, match='solvers: got .*; allowed: DDIM; DDPM; '):
      rows.chosen(text, informed)


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow', 'sub_vp'])
def test_the_recommended_solver_fits_any_budget(kind):
  process = getattr(schedules, kind)()
  assert [solvers.recommended(process, n).nfe for n in (1, 2, 5, 20)] == [1, 2, 5, 20]
  with pytest.raises(ValueError, match='steps: got 0'):
    solvers.recommended(process, 0)
