"""diffjax search, and what sample and evaluate do with its file, on a run in miniature."""

import json
import os
import re

import jax.numpy as jnp
import numpy as np
import pytest

import diffjax
from diffjax import schedules, solvers
from diffjax.cli import main
from diffjax.commands import search as searching
from diffjax.methods import solved
from diffjax.runs import record
from diffjax.runs.experiment import build
from diffjax.runs.generate import key_batch
from diffjax.search import reference
from diffjax.solvers import grids
from diffjax.solvers.solver_file import read, write

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=16, depth=1)
  c.loss = dict(name='denoising', kind='v', drop_cond=.1)
  c.train = dict(steps=20, batch=32, log_every=10, save_every=10, optimiser=dict(name='adam', learning_rate=1e-2))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=4)
  c.evaluation = dict(n=60)
  return c
"""


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  base = tmp_path_factory.mktemp('search')
  (base / 'tiny.py').write_text(CONFIG)
  assert main(['train', f'--config={base}/tiny.py', f'--workdir={base}/run']) == 0
  return str(base / 'run')


def refused(capsys, *arguments):
  """The one line with which a command ends at status 2."""
  capsys.readouterr()
  assert main(list(arguments)) == 2
  lines = [line for line in capsys.readouterr().err.splitlines() if line]
  assert len(lines) == 1 and lines[0].startswith('diffjax: '), lines
  return lines[0]


@pytest.fixture(scope='module')
def judge(workdir):
  """The starts k = 32 to 63 of seed 0, and table -> its error on them in NumPy."""
  denoise, _, config = diffjax.load(workdir)
  what = build(config)
  x, _ = solved(denoise, what.solver(workdir), (8, 8, 1), what.spread(workdir)).start(key_batch(0, np.arange(32, 64)))
  labels = jnp.arange(32, dtype=jnp.int32) % 10
  wanted = np.float64(reference(denoise, x, labels))

  def error(table):
    gap = np.float64(solvers.sample(denoise, table, x, None, labels)) - wanted
    return np.sqrt(np.mean(np.sum(gap**2, (1, 2, 3))))

  return np.asarray(x), error


@pytest.mark.quick('boss-1')
@pytest.mark.parametrize('method, budget', [('evolution', 40), ('boss', 1), ('gradient', 20)])
def test_a_searched_solver_samples(method, budget, workdir, judge, tmp_path, capsys, monkeypatch):
  """What is printed is the error on starts that the search was not given; it falls, or the times are others.

  By a tenth: the network is smooth, and what helps on 32 starts helps on 32 others. Of its times boss promises nothing
  for other solvers than Euler's.
  """
  fitted, names = [], dict(evolution='_evolved', boss='_bellman', gradient='_descended')
  fit = getattr(searching, names[method])
  monkeypatch.setattr(searching, names[method], lambda what, before, seen, options: (
    fitted.append(np.asarray(seen.x)) or fit(what, before, seen, options)))  # fmt: skip
  out = str(tmp_path / 'found.npz')
  arguments = ['--nfe=3', f'--method={method}', '--starts=32', f'--budget={budget}', f'--out={out}']
  assert main(['search', f'--workdir={workdir}', *arguments]) == 0
  before, after = capsys.readouterr().out.splitlines()[-2:]
  assert 'dpmpp_2m on uniform, 3 evaluations: error' in before and method in after and out in after
  kept = read(out, build(record.read_config(workdir)).process)
  assert kept.table.nfe == 3 and method in kept.about

  held, error = judge
  assert not set(map(bytes, fitted[0])) & set(map(bytes, held))
  process = build(record.read_config(workdir)).process
  own = solvers.dpmpp_2m(process, grids.uniform(process, 3))
  for line, table in ((before, own), (after, kept.table)):
    printed = float(re.search(r'error ([0-9.]+)', line)[1])
    assert printed == pytest.approx(error(table), rel=1e-3, abs=1e-4)
  if method == 'boss':
    assert np.abs(np.asarray(kept.table.rows.t) - np.asarray(own.rows.t)).max() > 0.01
  else:
    assert error(kept.table) < 0.9 * error(own)
  assert main(['sample', f'--workdir={workdir}', f'--solver={out}', f'--out={tmp_path}/drawn', '--n=12']) == 0
  assert f'12 samples, {out}, 3 evaluations' in capsys.readouterr().out
  with np.load(tmp_path / 'drawn.npz') as file:
    assert file['samples'].shape == (12, 8, 8, 1) and np.isfinite(file['samples']).all()
  assert 'which is there; allowed: another path, or --replace' in refused(
    capsys, 'search', f'--workdir={workdir}', '--nfe=3', f'--out={out}'
  )


@pytest.mark.slow
def test_the_file_of_the_configs_own_solver_gives_its_samples(workdir, tmp_path):
  """Bit for bit, through sample and evaluate."""
  process = build(record.read_config(workdir)).process
  write(f'{tmp_path}/own.npz', solvers.dpmpp_2m(process, grids.uniform(process, 4)), process, 'own')
  for name, extra in dict(config=[], file=[f'--solver={tmp_path}/own.npz']).items():
    assert main(['sample', f'--workdir={workdir}', f'--out={tmp_path}/{name}', *extra]) == 0
  a, b = (np.load(f'{tmp_path}/{name}.npz')['samples'] for name in ('config', 'file'))
  np.testing.assert_array_equal(a, b)
  assert main(['evaluate', f'--workdir={workdir}', f'--solver={tmp_path}/own.npz']) == 0
  report = json.loads(open(f'{workdir}/report.json').read())
  assert report['solver'] == {'file': f'{tmp_path}/own.npz'} and report['grid'] is None and report['nfe'] == 4


def test_refusals(workdir, tmp_path, capsys):
  search = ['search', f'--workdir={workdir}']
  assert "method: got 'magic'; allowed: evolution, boss, gradient" in refused(
    capsys, *search, '--nfe=3', '--method=magic'
  )
  assert 'nfe: got 0; allowed: a whole number' in refused(capsys, *search, '--nfe=0')
  assert 'deterministic' in refused(capsys, *search, '--nfe=3', '--config.sampling.solver.name=ddpm')
  process, path = schedules.flow(), f'{tmp_path}/flow.npz'
  write(path, solvers.ddim(process, grids.uniform(process, 4)), process, '')
  for command in ('sample', 'evaluate'):
    assert 'made for another process' in refused(capsys, command, f'--workdir={workdir}', f'--solver={path}')
    assert 'not there' in refused(capsys, command, f'--workdir={workdir}', f'--solver={tmp_path}/no.npz')
    assert 'one of them' in refused(
      capsys, command, f'--workdir={workdir}', f'--solver={path}', '--config.sampling.steps=3'
    )
  assert not os.path.exists(f'{workdir}/solvers')
