"""The configs of latent consistency, of what tunes a run and of fair data: built from shapes, and as commands."""

import numpy as np
import pytest

from diffjax.cli import main
from diffjax.fewstep.iterated import Iterated
from diffjax.runs import record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build

SMALL = ['net.width=4', 'train.batch=8', 'train.save_every=4', 'evaluation.n=40', 'mesh.cpu_devices=0']
TAUGHT = ('latent_consistency', 'reward_guided_latent_consistency')
TUNED = ('rl_consistency', 'pairwise')
FEWSTEP = 'experiments/configs/fewstep'


def line(name, home, steps=3):
  """The arguments of a small run of this name."""
  few = [] if name in TUNED or steps > 100 else ['train.optimiser.warmup=0']
  changes = [*SMALL, f'train.steps={steps}', *few]
  if name in TUNED:
    changes += [f'base.run={home}/consistency', *(['method.ways=16'] if name == 'rl_consistency' else [])]
  else:
    changes += [f'teacher.run={home}/teacher']
  return [f'--config={FEWSTEP}/{name}_digits.py', *(f'--config.{change}' for change in changes)]


def read(name, home):
  path, *changes = line(name, home, 2000)
  return override(from_file(path.removeprefix('--config=')), changes)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Runs that are configs alone."""
  home = tmp_path_factory.mktemp('configs')
  told = override(from_file('experiments/configs/digits.py'), [f'--config.{change}' for change in SMALL])
  record.claim(f'{home}/teacher', told)
  record.claim(f'{home}/consistency', read('consistency_distillation', home))
  return home


@pytest.mark.quick('latent_consistency')
@pytest.mark.parametrize('name', [*TAUGHT, *TUNED])
def test_configs_are_built_and_draw_by_jumps(name, written):
  """Students begin as their teacher or base; of as many evaluations as the config has steps."""
  config = read(name, written)
  assert config.train.steps * config.train.batch <= 400_000
  experiment = build(config)
  assert experiment.method.copied['student'].source == ('base' if name in TUNED else 'teacher')
  assert set(experiment.roles()) >= {'student', 'base' if name in TUNED else 'teacher'}
  draw = experiment.generator(experiment.roles())
  assert isinstance(draw, Iterated) and draw.nfe == config.sampling.steps


def test_a_table_is_built_without_a_teacher():
  experiment = build(from_file(f'{FEWSTEP}/fair_latent_distillation_table.py'))
  assert set(experiment.roles()) == {'student', 'teacher', 'small'}


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  home = tmp_path_factory.mktemp('tuned')
  config = [f'--config.{change}' for change in (*SMALL, 'train.steps=2', 'train.optimiser.warmup=0')]
  assert main(['train', '--config=experiments/configs/digits.py', f'--workdir={home}/teacher', *config]) == 0
  assert main(['train', *line('consistency_distillation', home), f'--workdir={home}/consistency']) == 0
  return home


@pytest.mark.slow
@pytest.mark.parametrize('name', [*TAUGHT, *TUNED])
def test_trains_and_samples(name, home):
  assert main(['train', *line(name, home), f'--workdir={home}/{name}']) == 0
  assert main(['sample', f'--workdir={home}/{name}', '--n=4', f'--out={home}/{name}-drawn']) == 0
  drawn = np.load(f'{home}/{name}-drawn.npz')['samples']
  assert drawn.shape == (4, 8, 8, 1) and np.isfinite(drawn).all()


@pytest.mark.slow
def test_a_fair_table_trains_and_samples(tmp_path):
  config = [
    f'--config.{change}' for change in ('train.steps=3', 'train.batch=16', 'train.optimiser.warmup=0', 'data.n=64')
  ]
  path = f'--config={FEWSTEP}/fair_latent_distillation_table.py'
  assert main(['train', path, f'--workdir={tmp_path}/run', *config]) == 0
  assert main(['sample', f'--workdir={tmp_path}/run', '--n=4', f'--out={tmp_path}/drawn']) == 0
  assert np.load(f'{tmp_path}/drawn.npz')['samples'].shape == (4, 6)
