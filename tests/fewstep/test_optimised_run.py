"""The configs of scenes, clips, super-resolution and EchoDistill: built from shapes, and as commands."""

import jax
import numpy as np
import pytest

from diffjax.cli import main
from diffjax.runs import record
from diffjax.runs.config import ConfigError, from_file, override
from diffjax.runs.experiment import build

SMALL = ['net.width=4', 'train.batch=16', 'train.save_every=4', 'evaluation.n=40', 'mesh.cpu_devices=0']
PLAIN = {'digits': 'experiments/configs/digits.py'}
TEACHERS = {name: f'experiments/configs/fewstep/{name}_digits.py' for name in ('clips', 'coarse')} | PLAIN
TAUGHT = {
  'score_distillation': 'digits', 'variational_score_distillation': 'digits', 'consistent_3d': 'digits',
  'self_forcing': 'clips', 'super_resolution': 'coarse', 'echo_distillation': 'digits',
}  # fmt: skip
EVALUATIONS = dict(self_forcing=8, super_resolution=1, echo_distillation=1)


def changes(name, home):
  own = {'self_forcing': ['method.frames=12'], 'super_resolution': ['method.steps=2'],
         'echo_distillation': ['method.steps=2']}  # fmt: skip
  return [f'--config.{change}' for change in (*SMALL, f'teacher.run={home}/{TAUGHT[name]}', *own.get(name, []))]


def config_of(name):
  return f'experiments/configs/fewstep/{name}_digits.py'


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Teachers that are configs alone."""
  home = tmp_path_factory.mktemp('configs')
  for name, path in TEACHERS.items():
    record.claim(f'{home}/{name}', override(from_file(path), [f'--config.{change}' for change in SMALL]))
  return home


@pytest.mark.quick('score_distillation')
@pytest.mark.parametrize('name', TAUGHT)
def test_configs_are_built_and_draw(name, written):
  config = from_file(config_of(name))
  assert config.train.steps * config.train.batch <= 400_000
  experiment = build(override(config, changes(name, written)))
  roles = experiment.roles()
  assert {'student', 'teacher'} <= set(roles)
  draw = jax.eval_shape(experiment.generator, roles)
  assert draw.nfe == EVALUATIONS.get(name, 0) and draw.shape == experiment.shape


def test_a_source_is_refused_where_no_network_is_told_it(written):
  config = override(from_file(config_of('super_resolution')), changes('super_resolution', written)[:-1])
  for change, message in {
    'method=consistency_training': r"config.loss.given: got \('source',\); allowed with consistency_training: none",
    'net=dit': r"given: got \('source',\); allowed: none, or source with a network that reads one, mlp or unet",
  }.items():
    with pytest.raises(ConfigError, match=message):
      build(override(config, [f'--config.{change}']))


@pytest.mark.slow
@pytest.mark.parametrize('name', TAUGHT)
def test_trains_samples_and_evaluates(name, tmp_path):
  few = ['--config.train.steps=2', '--config.train.optimiser.warmup=0']
  small = [f'--config.{change}' for change in SMALL]
  teacher = TAUGHT[name]
  assert main(['train', f'--config={TEACHERS[teacher]}', f'--workdir={tmp_path}/{teacher}', *small, *few]) == 0
  few = few[: 1 if 'distillation' in name and name != 'echo_distillation' or name == 'consistent_3d' else 2]
  line = ['train', f'--config={config_of(name)}', f'--workdir={tmp_path}/own', *changes(name, tmp_path), *few]
  assert main(line) == 0
  assert main(['sample', f'--workdir={tmp_path}/own', '--n=6', f'--out={tmp_path}/drawn']) == 0
  x = np.load(f'{tmp_path}/drawn.npz')
  assert len(x[x.files[0]]) == 6
  assert main(['evaluate', f'--workdir={tmp_path}/own']) == 0
