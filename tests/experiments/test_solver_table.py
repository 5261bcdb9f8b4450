"""The solver table on a few cells: measured once, resumed, judged."""

import json

import numpy as np
import pytest

from diffjax import schedules, solvers
from diffjax.exact import gaussian
from experiments.tables import solvers as table


@pytest.fixture
def small(monkeypatch):
  """Two solvers on one grid, one Gaussian, one process, 16 starts."""
  monkeypatch.setattr(table, 'SOLVERS', {name: table.SOLVERS[name] for name in ('DDIM', 'DDPM')})
  monkeypatch.setattr(table, 'GRIDS', ('uniform',))
  monkeypatch.setattr(table, 'PROCESSES', {'VP linear': 'vp_linear'})
  monkeypatch.setattr(table, 'STARTS', 16)
  monkeypatch.setattr(table, 'CHUNK', 2)
  monkeypatch.setattr(table.targets, 'judged', lambda: {'Gaussian': gaussian([0.5, 0.0], [0.3, 0.01])})


def test_cells_are_measured_once_and_resumed(small, tmp_path, monkeypatch):
  lines = table.exact(tmp_path, (3,))
  assert {(line['solver'], line['error'] is None) for line in lines} == {
    ('DDIM', False),
    ('DDPM', True),  # stochastic: no distance to the solution
    ('recommended', False),
  }
  with (tmp_path / 'exact.jsonl').open('a') as file:
    file.write('{"solver": "DD')  # killed while it wrote
  monkeypatch.setattr(table, 'runs', lambda *a: pytest.fail('measured again'))
  assert len(table.exact(tmp_path, (3,))) == 3
  text = table.report(lines, 'error', (3,), tmp_path, 'Error')
  assert 'Default' in text and 'lower than each of the 1 other' in text
  assert (tmp_path / 'error.csv').read_text().startswith('solver,grid,3') and (tmp_path / 'error.png').exists()


def test_errors_are_distances_to_the_closed_flow(small, tmp_path):
  """DDIM's on the Gaussian, by its own linear recursion."""
  lines = {line['solver']: line for line in table.exact(tmp_path, (3,))}
  process, target = schedules.vp_linear(), gaussian([0.5, 0.0], [0.3, 0.01])
  x = start = float(process.schedule(process.t_max)[1]) * np.random.default_rng(0).standard_normal((16, 2))
  mean, var = np.array([0.5, 0.0]), np.array([0.3, 0.01])
  levels = table.grids.at(process, np.linspace(1, 0, 4))
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
  """On the 20 evaluations of at least one grid and process; the published figures name what a run would need."""
  process = schedules.edm()
  found = {name for name, _ in table.configurations(process, 20)}
  assert found == {*table.SOLVERS, 'recommended'}
  assert all('checkpoint' in line or '.p' in line for line in table.published().splitlines()[2:])


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow', 'sub_vp'])
def test_the_recommended_solver_fits_any_budget(kind):
  process = getattr(schedules, kind)()
  assert [solvers.recommended(process, n).nfe for n in (1, 2, 5, 20)] == [1, 2, 5, 20]
  with pytest.raises(ValueError, match='steps: got 0'):
    solvers.recommended(process, 0)
