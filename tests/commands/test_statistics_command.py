"""diffjax statistics as a user meets it: what needs it, what it leaves, and what refuses its files."""

import json
import shutil

import jax
import numpy as np
import pytest

from diffjax import statistics
from diffjax.cli import main

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.loss = dict(name='denoising', kind='v', drop_cond=.1)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=16, depth=1)
  c.train = dict(steps=4, batch=16, save_every=4, optimiser=dict(name='adam', learning_rate=1e-2))
  c.sampling = dict(solver=dict(name='dpm_v3', order=2), grid='uniform', steps=4, guidance_scale=2.)
  return c
"""


def refused(capsys, *arguments):
  """The one line with which a command ends at status 2."""
  capsys.readouterr()
  assert main(list(arguments)) == 2
  lines = [line for line in capsys.readouterr().err.splitlines() if line]
  assert len(lines) == 1, lines
  return lines[0]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run whose config names a solver that needs statistics: it trains without them."""
  path = tmp_path_factory.mktemp('run')
  (path / 'config.py').write_text(CONFIG)
  assert main(['train', f'--config={path}/config.py', f'--workdir={path}/run']) == 0
  return f'{path}/run'


@pytest.fixture(scope='module')
def known(trained):
  """The same run with statistics."""
  shutil.copytree(trained, f'{trained}_known')
  assert main(['statistics', f'--workdir={trained}_known', '--n=64', '--knots=6']) == 0
  return f'{trained}_known'


def test_options_are_checked_before_there_are_statistics(trained, tmp_path, capsys):
  config = f'--config={trained}/../config.py'
  for change, words in (
    ('solver.order=7', 'order: got 7; allowed: a whole number from 1 to the 4 steps'),
    ('solver.ordr=2', "did you mean 'order'"),
    ('solver={"name": "analytic_dpm", "bound": "x"}', "bound: got 'x'; allowed: data, energy"),
    ('solver.name=dpm_v4', "did you mean 'dpm_v3'"),
  ):
    line = refused(capsys, 'train', config, f'--workdir={tmp_path}/other', f'--config.sampling.{change}')
    assert words in line and 'config.sampling.solver' in line
  assert not (tmp_path / 'other').exists()


def test_the_data_are_measured_at_the_start(trained):
  """Those of the training split, whole."""
  from diffjax import data

  x = data.load('digits', 'train').arrays()['x'].astype(np.float64)
  found = statistics.load(f'{trained}/statistics/data.npz', statistics.Spread)
  np.testing.assert_allclose(found.mean, x.mean(0), atol=1e-12)
  np.testing.assert_allclose(found.std, np.sqrt(x.var(0).mean()), rtol=1e-12)


def test_without_statistics_the_command_is_named(trained, capsys):
  for name, kind in (('dpm_v3', 'linear'), ('analytic_dpm', 'energies')):
    line = refused(capsys, 'sample', f'--workdir={trained}', f'--config.sampling.solver.name={name}')
    assert f'{trained}/statistics/{kind}.npz is not there; diffjax statistics --workdir={trained} makes them' in line


def test_it_leaves_three_files_that_sampling_reads(known, tmp_path, capsys):
  assert main(['sample', f'--workdir={known}', f'--out={tmp_path}/v3']) == 0
  assert 'dpm_v3, 4 evaluations, scale 2' in capsys.readouterr().out
  assert main(['sample', f'--workdir={known}', '--config.sampling.solver.name=analytic_dpm']) == 0
  linear = statistics.load(f'{known}/statistics/linear.npz', statistics.ModelStatistics)
  energies = statistics.load(f'{known}/statistics/energies.npz', statistics.NoiseEnergy)
  gaussian = statistics.load(f'{known}/statistics/gaussian.npz', statistics.Gaussian)
  assert linear.l.shape == (6, 8, 8, 1) and energies.value.shape == (6,) and gaussian.mean.shape == (8, 8, 1)
  assert linear.scale == energies.scale == 2 and (energies.low, energies.high) == (-1, 1)
  assert len(gaussian.var) <= 63


def test_sampling_is_that_of_the_library_with_these_terms(known, tmp_path):
  """The file is what the table is laid out on: the same samples from `diffjax.load` and `solvers.dpm_v3`."""
  import diffjax
  from diffjax import guidance, solvers
  from diffjax.methods import solved
  from diffjax.runs.generate import generate
  from diffjax.solvers import grids

  assert main(['sample', f'--workdir={known}', f'--out={tmp_path}/v3', '--labels=3,4,5']) == 0
  denoise, process, config = diffjax.load(known)
  terms = statistics.load(f'{known}/statistics/linear.npz', statistics.ModelStatistics)
  solver = solvers.dpm_v3(process, grids.uniform(process, 4), terms, order=2)
  data = statistics.load(f'{known}/statistics/data.npz', statistics.Spread)
  drawn = generate(solved(guidance.cfg(denoise, 2.0), solver, (8, 8, 1), data), 3, np.array([3, 4, 5], np.int32))
  with np.load(tmp_path / 'v3.npz') as file:
    np.testing.assert_allclose(file['samples'], np.clip(drawn, -1, 1), atol=1e-5)
  assert jax.tree.leaves(terms)


def test_computing_again_replaces_and_says_so(known, tmp_path, capsys):
  shutil.copytree(known, tmp_path / 'run')
  line = refused(capsys, 'sample', f'--workdir={tmp_path}/run', '--config.sampling.guidance_scale=3')
  assert 'config.sampling.guidance_scale: got 3; allowed' in line and f'--workdir={tmp_path}/run --scale=3' in line
  assert main(['statistics', f'--workdir={tmp_path}/run', '--n=64', '--knots=6', '--scale=3']) == 0
  told, bars = capsys.readouterr()
  first = '64 examples at 6 noise levels, scale 3: 768 forwards (energies), 1,536 forwards and 1,536 JVPs (linear)'
  assert told.startswith(first)  # two forwards an evaluation under guidance, two passes
  assert 'energies: 100%' in bars and bars.count('linear: 100%') == 2
  assert told.count('(replaces the one that was there)') == 3 and 'scale 3' in told
  assert main(['sample', f'--workdir={tmp_path}/run', '--config.sampling.guidance_scale=3']) == 0
  assert sorted(p.name for p in (tmp_path / 'run' / 'statistics').iterdir()) == [
    'data.npz',
    'energies.npz',
    'gaussian.npz',
    'linear.npz',
  ]


def test_files_that_do_not_fit_are_refused(known, tmp_path, capsys):
  shutil.copytree(known, tmp_path / 'run')
  path = tmp_path / 'run' / 'statistics' / 'linear.npz'
  good = statistics.load(str(path), statistics.ModelStatistics)
  command = ('sample', f'--workdir={tmp_path}/run')
  statistics.save(str(path), good.replace(stamp=good.stamp * 1.1))
  line = refused(capsys, *command)
  assert 'made for another process' in line and 'diffjax statistics --workdir' in line
  statistics.save(str(path), good.replace(**{name: getattr(good, name)[:, :4] for name in ('l', 's', 'b')}))
  assert 'config.data.shape: got (8, 8, 1); allowed' in refused(capsys, *command)
  shutil.copy(path.parent / 'energies.npz', path)
  assert "holds 'energies'; allowed: 'linear'" in refused(capsys, *command)
  path.write_bytes(path.read_bytes()[:500])
  assert 'which is damaged' in refused(capsys, *command)


@pytest.mark.slow
@pytest.mark.parametrize('level, first', [(3, 1), (1.5, 2)])
def test_teleported_samples_are_the_solver_begun_where_the_gaussian_arrives(level, first, known, tmp_path, capsys):
  """On times .75, .5 and .25 of t_max, sigma / alpha 2.3, 1 and .43: below 3 one evaluation is saved, below 1.5 two."""
  import diffjax
  from diffjax import guidance, solvers
  from diffjax.methods import solved
  from diffjax.runs.generate import key_batch
  from diffjax.runs.spread import spread
  from diffjax.solvers import grids

  denoise, process, _ = diffjax.load(known)
  data, ts = statistics.load(f'{known}/statistics/gaussian.npz', statistics.Gaussian), grids.uniform(process, 4)
  begin = solvers.teleport(solvers.ddim(process, ts[1:]), process, data)  # at t_max, whatever the solver
  x, _ = solved(denoise, begin, (8, 8, 1), spread(known, (8, 8, 1))).start(key_batch(0, np.arange(3)))
  arguments = [f'--config.sampling.teleport={level}', '--config.sampling.solver.name=dpmpp_2m', '--labels=3,4,5']
  assert main(['sample', f'--workdir={known}', f'--out={tmp_path}/leap', *arguments]) == 0
  told = f'dpmpp_2m from sigma / alpha <= {level} on, {4 - first} evaluations, scale 2'
  assert told in capsys.readouterr().out
  begun = solvers.leap(process, data, x, process.t_max, ts[first])
  solver = solvers.dpmpp_2m(process, ts[first:])
  drawn = solvers.sample(guidance.cfg(denoise, 2.0), solver, begun, cond=np.array([3, 4, 5], np.int32))
  with np.load(tmp_path / 'leap.npz') as file:
    np.testing.assert_allclose(file['samples'], np.clip(drawn, -1, 1), atol=1e-4)


@pytest.mark.slow
def test_teleported_samples_are_evaluated(known, tmp_path):
  shutil.copytree(known, tmp_path / 'run')
  overrides = ['--config.sampling.teleport=1.5', '--config.evaluation.n=64']
  assert main(['evaluate', f'--workdir={tmp_path}/run', *overrides]) == 0
  report = json.loads((tmp_path / 'run' / 'report.json').read_text())
  assert (report['nfe'], report['teleport']) == (2, 1.5)


def test_leaps_that_cannot_be_are_refused(trained, known, tmp_path, capsys):
  """By name: no statistics, of other data, a level that leaves nothing out or no step, a solver of its own times."""
  leap = '--config.sampling.teleport=1.5'
  line = refused(capsys, 'sample', f'--workdir={trained}', '--config.sampling.solver.name=ddim', leap)
  path = f'{trained}/statistics/gaussian.npz'
  assert f'config.sampling.teleport: a leap needs the statistics of a trained run, and {path} is not there' in line
  assert f'diffjax statistics --workdir={trained} makes them' in line
  for level in (-1, 0.1, 1e9):
    line = refused(capsys, 'train', f'--config={trained}/../config.py', f'--workdir={tmp_path}/other',
                   f'--config.sampling.teleport={level}')  # fmt: skip
    assert f'config.sampling.teleport: level: got {level:g}; allowed: sigma / alpha of at least 0.4' in line
  assert not (tmp_path / 'other').exists()
  line = refused(capsys, 'sample', f'--workdir={known}', leap, '--config.sampling.solver.order=3')
  assert 'order: got 3; allowed: a whole number from 1 to the 2 steps' in line
  for command in (['search', '--nfe=4'], ['sample', '--solver=a.npz']):
    assert 'config.sampling.teleport' in refused(capsys, *command, f'--workdir={known}', leap)
  shutil.copytree(known, tmp_path / 'run')
  path = tmp_path / 'run' / 'statistics' / 'gaussian.npz'
  data = statistics.load(str(path), statistics.Gaussian)
  statistics.save(str(path), data.replace(mean=data.mean.reshape(4, 16)))
  line = refused(capsys, 'sample', f'--workdir={tmp_path}/run', leap)
  assert f'config.data.shape: got (8, 8, 1); allowed with {path}: (4, 16)' in line
  shutil.copy(path.parent / 'energies.npz', path)
  line = refused(capsys, 'sample', f'--workdir={tmp_path}/run', leap)
  assert 'config.sampling.teleport: statistics: got' in line and "holds 'energies'; allowed: 'gaussian'" in line


def test_bad_arguments(known, capsys):
  for change, words in (('--n=1', 'n: got 1; allowed: at least 2'), ('--knots=1', 'knots: got 1; allowed: at least 2'),
                        ('--step=9', 'step: got 9'), ('--config.net.width=8', 'config.net: differs')):  # fmt: skip
    assert words in refused(capsys, 'statistics', f'--workdir={known}', change)
  assert 'holds no run' in refused(capsys, 'statistics', f'--workdir={known}/nowhere')
