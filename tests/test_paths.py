"""~ means home in every path, and nothing else changes."""

import os

import pytest

from diffjax import files, paths, schedules, solvers, statistics
from diffjax.cli import main
from diffjax.data.files import at
from diffjax.data.records import data_home
from diffjax.runs import record
from diffjax.runs.config import from_file
from diffjax.solvers import grids, solver_file


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A home that is empty, and another working directory, which must stay so."""
  (tmp_path / 'home').mkdir()
  (tmp_path / 'here').mkdir()
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.chdir(tmp_path / 'here')
  yield tmp_path / 'home'
  assert not list((tmp_path / 'here').iterdir())


def test_the_rule(home):
  for path, right in {'~': home, '~/a/b': home / 'a' / 'b', 'a/~': 'a/~', './~': './~', '/x/y': '/x/y', 'gs://b/~/c':
                      'gs://b/~/c'}.items():  # fmt: skip
    assert paths.expanded(path) == str(right)
  assert str(paths.place('gs://b/~/c')) == 'gs://b/~/c'
  with pytest.raises(ValueError, match=r"workdir: got '~no-such-user/x'; allowed: .*\./~no-such-user/x"):
    paths.place('~no-such-user/x', 'workdir')


def test_every_door_of_the_library(home, monkeypatch):
  """What each writes or reads lies in the home."""
  from diffjax.train.checkpoint import Checkpoints
  from diffjax.train.log import read_csv

  process = schedules.cosine()
  solver_file.write('~/a/solver.npz', solvers.ddim(process, grids.uniform(process, 2)), process, 'mine')
  assert (home / 'a' / 'solver.npz').exists() and solver_file.read('~/a/solver.npz', process).about == 'mine'
  statistics.save('~/s/energies.npz', statistics.NEUTRAL['energies'](process))
  assert (home / 's' / 'energies.npz').exists()
  statistics.load('~/s/energies.npz', statistics.NoiseEnergy)
  (home / 'tiny.py').write_text(
    'from ml_collections import ConfigDict\nget_config = lambda x=1: ConfigDict(dict(seed=int(x)))'
  )
  assert from_file('~/tiny.py').seed == 1 and from_file('~/tiny.py:7').seed == 7
  record.claim('~/run', from_file('~/tiny.py'))
  assert (home / 'run' / 'config.json').exists() and record.read_config('~/run').seed == 1
  files.write('~/b/c', b'1')
  assert (home / 'b' / 'c').read_bytes() == b'1'
  Checkpoints('~/run/checkpoints').close()
  assert (home / 'run' / 'checkpoints').is_dir()
  (home / 'run' / 'metrics.csv').write_text('step,loss\n3,1\n')
  assert read_csv('~/run/metrics.csv')[0]['step'] == '3'
  assert str(at('~/{split}.npz', 'test')) == f'{home}/test.npz'
  monkeypatch.setenv('TFDS_DATA_DIR', '~/sets')
  assert str(data_home()) == f'{home}/sets' and str(data_home('~/own')) == f'{home}/own'


@pytest.mark.parametrize('option', ['workdir', 'config', 'out', 'solver'])
def test_a_home_that_is_not_there_is_refused(option, home, capsys):
  given = dict(workdir=f'{home}/run') | {option: '~no-such-user/x'}
  command = 'train' if option == 'config' else 'sample'
  assert main([command, *(f'--{name}={value}' for name, value in given.items())]) == 2
  assert f"{option}: got '~no-such-user/x'; allowed: " in capsys.readouterr().err
  assert not os.listdir(home)
