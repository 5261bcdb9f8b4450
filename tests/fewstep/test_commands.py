"""The configs of distilled students go through every command, from a small teacher and for a few steps."""

import json
import pathlib

import numpy as np
import pytest

from diffjax.cli import main
from diffjax.runs import record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build

CONFIGS = {'progressive': 16, 'prodiff': 4, 'guided': 16, 'reflow': 6}  # a few steps, some in each stage
SMALL = ['net.width=4', 'train.batch=8', 'train.save_every=4', 'evaluation.n=40', 'mesh.cpu_devices=0']


def line(name, home, steps, *changes):
  changes = [*SMALL, f'train.steps={steps}', f'teacher.run={home}/teacher', *changes]
  if name == 'reflow':
    changes += ['method.pool=16', 'method.steps=2']
  if steps < 100:
    changes += ['train.optimiser.warmup=0']
  return [f'--config=experiments/configs/fewstep/{name}_digits.py', *(f'--config.{change}' for change in changes)]


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  home = tmp_path_factory.mktemp('few')
  config = [f'--config.{change}' for change in (*SMALL, 'train.steps=2', 'train.optimiser.warmup=0')]
  assert main(['train', '--config=experiments/configs/digits.py', f'--workdir={home}/teacher', *config]) == 0
  return home


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_trains_samples_and_evaluates(name, home):
  """From what it has saved it draws and is measured."""
  assert main(['train', *line(name, home, CONFIGS[name]), f'--workdir={home}/{name}/whole']) == 0
  assert main(['sample', f'--workdir={home}/{name}/whole', '--n=6', f'--out={home}/{name}/drawn']) == 0
  drawn = np.load(f'{home}/{name}/drawn.npz')['samples']
  assert drawn.shape == (6, 8, 8, 1) and np.isfinite(drawn).all()
  assert main(['evaluate', f'--workdir={home}/{name}/whole']) == 0
  report = json.loads(pathlib.Path(f'{home}/{name}/whole/report.json').read_text())
  assert report['nfe'] == from_file(f'experiments/configs/fewstep/{name}_digits.py').sampling.steps


@pytest.mark.quick('progressive')
@pytest.mark.parametrize('name', CONFIGS)
def test_the_configs_are_built_and_begin_as_their_teacher(name, tmp_path):
  """All but the straight flow, which is another process, and the one that predicts the data, begin as the teacher."""
  told = override(from_file('experiments/configs/digits.py'), [f'--config.{change}' for change in SMALL])
  record.claim(f'{tmp_path}/teacher', told)
  path, *changes = line(name, tmp_path, 2000)
  experiment = build(override(from_file(path.removeprefix('--config=')), changes))
  assert bool(experiment.method.copies) == (name in ('progressive', 'guided'))
  assert set(experiment.roles()) == {'student', 'teacher'}
