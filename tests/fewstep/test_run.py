"""Few-step methods through the commands, and their configs."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import diffjax
from diffjax.cli import main
from diffjax.runs.config import ConfigError, from_file
from diffjax.runs.experiment import build
from diffjax.runs.generate import key_batch

CONFIGS = sorted(Path('experiments/configs/fewstep').glob('*_digits.py'))
OURS = ('consistency_', 'improved_', 'continuous_', 'mean_flow', 'shortcut')


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.stem.startswith(OURS)], ids=lambda path: path.stem)
def test_configs(path):
  """Those without a teacher are built, with a generator of one jump, a bridge's of one more evaluation at its source;
  the others ask for the run that teaches them."""
  config = from_file(str(path))
  assert config.train.steps * config.train.batch <= 400_000
  if config.teacher.run:
    config.teacher.run = 'runs/not/there'
    with pytest.raises(ConfigError, match='runs/not/there'):
      build(config)
    return
  experiment = build(config)
  draw = jax.eval_shape(lambda: experiment.generator(experiment.init(jax.random.key(0))))
  assert draw.nfe == draw.cost == (2 if 'bridge' in path.stem else 1) and draw.shape == (8, 8, 1)


TINY = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='ring8', shape=(2,), classes=8, n=512)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=16, depth=1)
  c.loss = dict(name='denoising', kind='edm')
  c.teacher = dict(target='ring8')
  c.method = dict(name='consistency_distillation')
  c.train = dict(steps=4, batch=16, log_every=2, save_every=2, optimiser=dict(name='adam', schedule='constant'))
  c.sampling = dict(grid='uniform', steps=2)
  c.evaluation = dict(n=64)
  return c
"""


@pytest.mark.slow
def test_through_the_commands(tmp_path):
  """Trained in two parts, sampled, evaluated and loaded."""
  (tmp_path / 'tiny.py').write_text(TINY)
  line = ['train', f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/run']
  assert main([*line, '--config.train.steps=2']) == 0
  assert main(line) == 0
  assert main(['sample', f'--workdir={tmp_path}/run', '--n=9', f'--out={tmp_path}/few']) == 0
  few = np.load(tmp_path / 'few.npz')
  draw = diffjax.generator(f'{tmp_path}/run')
  assert draw.nfe == 2
  np.testing.assert_allclose(draw(key_batch(0, np.arange(9)), few['labels']), few['samples'], atol=1e-5)
  assert main(['evaluate', f'--workdir={tmp_path}/run']) == 0
  assert json.loads((tmp_path / 'run' / 'report.json').read_text())['nfe'] == 2
