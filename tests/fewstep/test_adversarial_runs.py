"""The configs of students with a discriminator are built, and go through the commands for a few steps."""

import numpy as np
import pytest

from diffjax.cli import main
from diffjax.runs import record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build

CONFIGS = ('adversarial_consistency_training', 'diffusion_gan', 'key_points', 'stochastic_consistency', 'ufogen')
SMALL = ['net.width=4', 'train.batch=8', 'train.save_every=4', 'evaluation.n=40', 'mesh.cpu_devices=0']


def changes(name, home, steps=2000):
  config = from_file(f'experiments/configs/fewstep/{name}_digits.py')
  small = [*SMALL, f'train.steps={steps}']
  if config.teacher.run:
    small += [f'teacher.run={home}/teacher']
  if steps < 100:
    small += ['train.optimiser.warmup=0']
  if name == 'key_points':
    small += ['method.trajectories=32']
  return config, [f'--config.{change}' for change in small]


@pytest.mark.quick('diffusion_gan')
@pytest.mark.parametrize('name', CONFIGS)
def test_the_configs_are_built(name, tmp_path):
  """With a discriminator of one output for the student's network, told labels as it is."""
  told = override(from_file('experiments/configs/digits.py'), [f'--config.{change}' for change in SMALL])
  record.claim(f'{tmp_path}/teacher', told)
  config, small = changes(name, tmp_path)
  assert config.train.steps * config.train.batch <= 400_000
  experiment = build(override(config, small))
  shapes = experiment.roles()
  assert shapes['discriminator']['out']['kernel'].shape[-1] == 1
  assert 'label' in shapes['discriminator'] and ('teacher' in shapes) == bool(config.teacher.run)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_samples(name, tmp_path):
  digits = [f'--config.{change}' for change in (*SMALL, 'train.steps=2', 'train.optimiser.warmup=0')]
  line = ['--config=experiments/configs/digits.py', f'--workdir={tmp_path}/teacher']
  assert main(['train', *line, *digits]) == 0
  path = f'--config=experiments/configs/fewstep/{name}_digits.py'
  assert main(['train', path, f'--workdir={tmp_path}/run', *changes(name, tmp_path, 6)[1]]) == 0
  assert main(['sample', f'--workdir={tmp_path}/run', '--n=6', f'--out={tmp_path}/drawn']) == 0
  drawn = np.load(tmp_path / 'drawn.npz')['samples']
  assert drawn.shape == (6, 8, 8, 1) and np.isfinite(drawn).all()
