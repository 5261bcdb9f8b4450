"""A run whose `train.steps` is raised: it goes on where its rate allows it, and says what it does otherwise."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from diffjax.cli import main
from diffjax.runs import directory, record
from diffjax.runs.experiment import build
from diffjax.train.sharding import make_mesh

SMALL = ['--config.net.width=16', '--config.net.depth=1', '--config.train.batch=16', '--config.train.log_every=5']
SCHEDULES = {'constant': [], 'inverse_sqrt': ['decay_from=4', 'warmup=2'], 'cosine': []}


def train(workdir, steps, schedule=None, *changes):
  """The exit status of a run of so many steps."""
  shape = [] if schedule is None else [f'schedule={schedule}', *SCHEDULES[schedule]]
  command = ['train', '--config=experiments/configs/toy2d.py', f'--workdir={workdir}', *SMALL]
  command += [f'--config.train.steps={steps}', *(f'--config.train.optimiser.{option}' for option in shape), *changes]
  return main(command)


def state(workdir):
  found = directory.restored(build(record.read_config(str(workdir))), str(workdir), make_mesh())
  return found.replace(key=jax.random.key_data(found.key))


@pytest.fixture(scope='module')
def five(tmp_path_factory):
  """schedule -> a finished run of five steps, which nobody changes."""

  @functools.cache
  def of(schedule):
    workdir = tmp_path_factory.mktemp('five') / 'run'
    assert train(workdir, 5, schedule) == 0
    return workdir

  return of


@pytest.mark.parametrize('schedule', ['constant', pytest.param('inverse_sqrt', marks=pytest.mark.slow)])
def test_goes_on_as_if_it_had_been_so_long(schedule, tmp_path, capsys):
  assert train(tmp_path / 'raised', 7, schedule) == 0
  assert train(tmp_path / 'raised', 12, schedule) == 0
  told = capsys.readouterr().out
  assert f'train.steps is raised from 7 to 12: the rate, {schedule}, goes on' in told
  assert 'going on from step 7 of 12' in told
  assert train(tmp_path / 'whole', 12, schedule) == 0
  jax.tree.map(np.testing.assert_array_equal, state(tmp_path / 'raised'), state(tmp_path / 'whole'))
  config, before = (
    json.loads((tmp_path / 'raised' / name).read_text()) for name in ('config.json', 'config_7_steps.json')
  )
  assert (config['train']['steps'], before['train']['steps']) == (12, 7)
  assert config == json.loads((tmp_path / 'whole' / 'config.json').read_text())


def refused(capsys, *arguments):
  capsys.readouterr()
  assert train(*arguments) == 2
  (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
  return line


@pytest.mark.parametrize('schedule', ['cosine', None])
def test_a_cosine_says_what_it_needs(schedule, five, tmp_path, capsys):
  """Longer, its rate would have been another from the first step: refused, by the way on; taken, it goes on."""
  shutil.copytree(five(schedule), tmp_path, dirs_exist_ok=True)
  before = (tmp_path / 'config.json').read_text()
  line = refused(capsys, tmp_path, 8, schedule)
  for words in ('config.train.steps: got 8; allowed: 5', 'cosine', '--config.train.optimiser.schedule=constant'):
    assert words in line
  assert before == (tmp_path / 'config.json').read_text()
  if schedule is None:
    return
  assert 'net.width is 16 there and 8 here' in refused(capsys, tmp_path, 8, 'constant', '--config.net.width=8')
  assert 'b1 is None there and 0.8 here' in refused(capsys, tmp_path, 8, 'constant', '--config.train.optimiser.b1=.8')
  peak = '--config.train.optimiser.learning_rate=1e-4'
  assert train(tmp_path, 8, 'constant', peak) == 0
  told = capsys.readouterr().out
  assert 'train.steps is raised from 5 to 8: from here on the rate is constant, no longer cosine' in told
  assert int(state(tmp_path).step) == 8 and before == (tmp_path / 'config_5_steps.json').read_text()
  assert 'train.steps is 8 there and 5 here' in refused(
    capsys, tmp_path, 5, 'constant', '--config.train.optimiser.learning_rate=1e-4'
  )


@pytest.mark.parametrize('change', ['learning_rate=1e-4', 'schedule=constant', 'clip=2.0'])
def test_nothing_else_may_change(change, five, capsys):
  """Not the rate without more steps, nor its peak under the schedule that goes on."""
  first, steps = (None, 5) if change.startswith('schedule') else ('constant', 8)
  line = refused(capsys, five(first), steps, first, f'--config.train.optimiser.{change}')
  assert f'optimiser.{change.partition("=")[0]} is' in line and 'another config' in line
