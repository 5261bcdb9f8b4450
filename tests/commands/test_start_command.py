"""A run sampled from a grid that begins below t_max: its commands begin there, at the Gaussian of the data."""

import json

import numpy as np
import pytest

import diffjax
from diffjax import solvers
from diffjax.cli import main
from diffjax.methods import solved
from diffjax.runs.generate import key_batch
from diffjax.runs.spread import spread
from diffjax.solvers.solver_file import read

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='moons', shape=(2,), classes=0)
  c.process = dict(name='edm')
  c.net = dict(name='mlp', width=32, depth=2)
  c.loss = dict(name='denoising', kind='edm', times='lognormal', weight='edm')
  c.train = dict(steps=400, batch=128, log_every=200, save_every=400, optimiser=dict(name='adam', learning_rate=1e-2))
  c.evaluation = dict(n=64)
  return c
"""
FINE = tuple(np.append(np.geomspace(3.0, 0.002, 40), 0.0))
COARSE = tuple(np.append(np.geomspace(3.0, 0.05, 6), 0.0))


def late(times, solver='dpmpp_2m'):
  sampling = dict(solver=dict(name=solver), grid=dict(name='array', times=tuple(map(float, times))))
  return [f'--config.sampling.{k}={v!r}' for k, v in (*sampling.items(), ('steps', len(times) - 1))]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  base = tmp_path_factory.mktemp('begin')
  (base / 'tiny.py').write_text(CONFIG)
  assert main(['train', f'--config={base}/tiny.py', f'--workdir={base}/run']) == 0
  return str(base / 'run')


@pytest.fixture(scope='module')
def drawn(workdir):
  """64 samples on the fine grid."""
  assert main(['sample', f'--workdir={workdir}', '--n=64', f'--out={workdir}/it', *late(FINE)]) == 0
  with np.load(f'{workdir}/it.npz') as file:
    return file['samples']


@pytest.mark.slow
def test_sample_begins_at_the_grids_first_time(workdir, drawn):
  """The samples are those of the library from there; their size is the data's, which from 80 z it was not."""
  denoise, process, _ = diffjax.load(workdir)
  data = spread(workdir, (2,))
  solver = solvers.dpmpp_2m(process, np.array(FINE))
  x, _ = solved(denoise, solver, (2,), data).start(key_batch(0, np.arange(64)))
  np.testing.assert_allclose(drawn, solvers.sample(denoise, solver, x), atol=1e-4)
  assert np.sqrt(np.mean((drawn - data.mean) ** 2)) < 1.5 * data.std


@pytest.mark.slow  # its samples are drawn as those of sample are
def test_evaluate_begins_there_too(workdir, drawn):
  data = spread(workdir, (2,))
  assert main(['evaluate', f'--workdir={workdir}', *late(FINE)]) == 0
  with np.load(f'{workdir}/samples.npz') as file:
    np.testing.assert_allclose(file['samples'], drawn, atol=1e-4)
  report = json.loads(open(f'{workdir}/report.json').read())
  assert (report['data_mean'], report['data_std']) == (float(np.mean(data.mean)), float(data.std))


@pytest.mark.slow
def test_search_begins_there_too(workdir, tmp_path, capsys):
  """What it compares with begins at the same x: the error of a fine grid is that of its order, not of another start."""
  out = f'{tmp_path}/found.npz'
  line = ['search', f'--workdir={workdir}', '--nfe=6', '--method=gradient', '--starts=16', '--budget=3', f'--out={out}']
  assert main([*line, *late(COARSE, 'ddim')]) == 0
  errors = [
    float(text.split('error ')[1].split(' ')[0].rstrip(',')) for text in capsys.readouterr().out.splitlines()[-2:]
  ]
  assert errors[0] < 0.5 and errors[1] < errors[0]  # from 80 z it is above 1
  process = diffjax.load(workdir)[1]
  table = read(out, process, (2,)).table
  np.testing.assert_allclose(table.rows.t[0], 3.0, rtol=1e-6)
  assert main(['sample', f'--workdir={workdir}', f'--solver={out}', '--n=8', f'--out={tmp_path}/it']) == 0


@pytest.mark.slow
def test_a_start_that_no_law_describes_is_told(workdir, tmp_path):
  with pytest.warns(UserWarning, match=r'the grid begins at t = 0.3, where alpha std / sigma = '):
    main(['sample', f'--workdir={workdir}', '--n=4', f'--out={tmp_path}/it', *late((0.3, 0.1, 0.0))])
