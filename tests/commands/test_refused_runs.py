"""One tiny run in a home: seeds that are too large, guidance that was not trained, numbers that are not finite."""

import json
import os

import jax
import numpy as np
import pytest

import diffjax
from diffjax import guidance
from diffjax.cli import main
from diffjax.runs import directory

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='npz', path='~/own.npz', shape=(4, 4, 1), classes=3)
  c.net = dict(name='mlp', width=8, depth=1)
  c.train = dict(steps=2, batch=6, save_every=2, optimiser=dict(name='adam', learning_rate=1e-3))
  c.sampling = dict(solver='ddim', grid='uniform', steps=2)
  c.evaluation = dict(n=60)
  return c
"""
EACH = 20  # images of a class


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A home with a run, its config and its data, all named by ~; the working directory is another one."""
  home = tmp_path_factory.mktemp('home')
  (home / 'tiny.py').write_text(CONFIG)
  x = np.random.default_rng(0).uniform(-1, 1, (3 * EACH, 4, 4, 1)).astype(np.float32)
  np.savez(home / 'own.npz', x=x, y=np.arange(3 * EACH) % 3)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HOME', str(home))
    patch.chdir(tmp_path_factory.mktemp('elsewhere'))
    assert main(['train', '--config=~/tiny.py', '--workdir=~/run']) == 0
    yield home
    assert not os.listdir()


@pytest.fixture
def ends(home, capsys):
  """(status, the one line it ends with), and that the command leaves no file behind but those named."""

  def end(command, *arguments, leaves=()):
    before = files(home)
    capsys.readouterr()
    status = main([command, '--workdir=~/run', *arguments])
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith('diffjax: ')]
    assert len(line) == 1 and files(home) - before == set(leaves)
    return status, line[0]

  return end


def files(home):
  return {str(file.relative_to(home)) for file in home.rglob('*') if file.is_file() and '.cache' not in file.parts}


@pytest.mark.slow
def test_all_lies_in_the_home(home):
  assert {'run/config.json', 'run/metrics.csv', 'run/loss.png'} <= files(home)
  assert main(['sample', '--workdir=~/run', '--n=2', '--out=~/here/two']) == 0
  assert {'here/two.npz', 'here/two.png'} <= files(home)
  assert main(['sample', '--workdir=~/run', '--seeds=0-1', '--out=~/there/two']) == 0
  assert {'there/two.npz', 'there/two/manifest.json'} <= files(home)
  assert diffjax.load('~/run')[2].data.path == '~/own.npz'


COMMANDS = dict(sample=['--n=1'], search=['--nfe=2'], statistics=['--n=2'])


@pytest.mark.parametrize('seed', [-1, 2**32, 2**32 + 5, 2**63])
@pytest.mark.parametrize('command', COMMANDS)
def test_seeds_that_are_too_large(command, seed, ends):
  status, line = ends(command, *COMMANDS[command], f'--seed={seed}')
  assert status == 2 and line == f'diffjax: seed: got {seed}; allowed: a whole number from 0 to 4294967295'


@pytest.mark.parametrize('seed', [-1, 2**32 + 5, 2**63])
@pytest.mark.parametrize('command', ['train', 'evaluate'])
def test_config_seeds_that_are_too_large(command, seed, ends, home):
  config = ['--config=~/tiny.py', '--workdir=~/other'] if command == 'train' else []
  status, line = ends(command, *config, f'--config.seed={seed}')
  assert status == 2 and f'config.seed: seed: got {seed}; allowed: a whole number from 0 to 4294967295' in line


def test_seeds_draw_each_their_own(home, tmp_path):
  """Also two that agree in all but their highest bit, and the greatest."""
  drawn = []
  for seed in (5, 2**31 + 5, 2**32 - 1):
    assert main(['sample', '--workdir=~/run', '--n=1', f'--seed={seed}', f'--out={tmp_path}/{seed}']) == 0
    drawn.append(np.load(tmp_path / f'{seed}.npz')['samples'].ravel())
  apart = np.abs(np.array(drawn)[:, None] - np.array(drawn)[None]).max(-1)
  assert apart[~np.eye(3, dtype=bool)].min() > 0.01


@pytest.mark.parametrize(
  'command', [['sample', '--n=1'], ['evaluate'], ['search', '--nfe=2'], ['statistics', '--n=2']], ids=lambda c: c[0]
)
def test_guidance_that_was_not_trained(command, ends, home):
  assert json.loads((home / 'run' / 'config.json').read_text())['loss']['drop_cond'] == 0
  status, line = ends(*command, '--config.sampling.guidance_scale=4.')
  assert status == 2 and 'config.sampling.guidance_scale: got 4; allowed: 1, since config.loss.drop_cond is 0' in line


def test_training_for_it_in_vain(ends):
  status, line = ends('train', '--config=~/tiny.py', '--workdir=~/other', '--config.sampling.guidance_scale=2.')
  assert status == 2 and 'config.loss.drop_cond is 0' in line


def test_a_loaded_run_remembers(home):
  denoise, _, _ = diffjax.load('~/run')
  with pytest.raises(ValueError, match='config.loss.drop_cond is 0'):
    guidance.cfg(denoise, 4.0)


@pytest.fixture
def broken(monkeypatch, home):
  """The weights of the run with the row of label 2 spoilt: every third sample is not finite."""
  whole = directory.weights

  def spoilt(*arguments):
    roles = jax.tree.map(np.array, whole(*arguments))
    roles['student']['label']['table'][2] = np.nan
    return roles

  monkeypatch.setattr(directory, 'weights', spoilt)


@pytest.mark.slow
def test_what_is_not_finite_is_no_picture(broken, ends, home):
  """By right value: how many, the first, status 1, and not a file of them."""
  status, line = ends('sample', '--n=10')
  assert status == 1 and 'samples: got 3 of 10 samples with NaN or infinity, the first is 2; allowed: finite' in line
  manifest = 'run/seeds/manifest.json'
  (home / manifest).unlink(missing_ok=True)
  status, line = ends('sample', '--seeds=3-9', leaves=[manifest])
  assert status == 1 and 'samples 3 to 9: got 2 of 7 samples with NaN or infinity, the first is 5' in line
  status, line = ends('evaluate')
  assert status == 1 and f'samples: got {EACH} of {3 * EACH} samples' in line
  status, line = ends('search', '--nfe=2', '--starts=9')
  assert status == 1 and 'reference: got 3 of 9 starts with NaN or infinity, the first is 2' in line
  gaussian = 'run/statistics/gaussian.npz'  # of the data alone, and whole
  (home / gaussian).unlink(missing_ok=True)
  status, line = ends('statistics', f'--n={3 * EACH}', '--knots=3', leaves=[gaussian])
  assert status == 1 and f'energies: got {EACH} of {3 * EACH} examples with NaN or infinity' in line


def test_the_finite_ones_are_drawn(broken, home, tmp_path):
  for how in ('--n=4', '--seeds=0-3'):
    assert main(['sample', '--workdir=~/run', '--labels=0,1', how, f'--out={tmp_path}/{how[2:]}']) == 0
  assert np.isfinite(np.load(tmp_path / 'n=4.npz')['samples']).all()
