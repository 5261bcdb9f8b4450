"""What all methods that match laws promise: who moves, that no data are read, and that a run of them is one program."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classroom import audit
from laws import LABELLED, TINY, blind, own, roles_of

from diffjax import fewstep
from diffjax.cli import main
from diffjax.runs import record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build

EVERY = {
  'dmd': lambda made: fewstep.distribution_matching(made, pool=8, fresh=4, steps=2),
  'dmd2': lambda made: fewstep.distribution_matching_2(made, levels=(5.0, 1.0), judging=0.0),
  'disback': lambda made: fewstep.distil_back(made, recorded=2, apart=1, interval=2),
  'sid': fewstep.score_identity,
  'sfd': lambda made: fewstep.score_forgetting(made, forget=7, override=0),
  'msd': lambda made: fewstep.multi_student(made, students=2, judging=0.0),
  'emd': lambda made: fewstep.em_distillation(made, moves=2),
}


def made_of(name):
  classes = 8 if name in ('sfd', 'msd') else 0
  return own(LABELLED if classes else TINY, classes=classes)


@pytest.mark.quick('dmd', 'sid', 'sfd')
@pytest.mark.parametrize('name', EVERY)
def test_each_phase_moves_its_role_and_reads_no_data(name):
  """Gradients in the phase's role alone, finite on data that are not numbers; a few steps are not skipped."""
  made = made_of(name)
  method = EVERY[name](made)
  assert method.loads == ('teacher',) and {copy.source for copy in method.copied.values()} == {'teacher'}
  assert all(role.startswith('student') for role in method.averaged)
  roles, batch = roles_of(method, made), blind(classes=made.classes)
  for buffer in ('progress', 'pairs', 'chain'):
    if buffer in method.buffers:
      roles[buffer] = method.buffers[buffer].renew(roles, roles[buffer], batch, jax.random.key(1))
  for phase in method.phases:
    moved = audit(phase.loss, roles, batch)
    assert 0 < moved.pop(phase.role) < jnp.inf
    assert set(moved.values()) == {0.0}, (phase.name, moved)


NAMES = ('distribution_matching', 'distribution_matching_2', 'distil_back', 'score_identity', 'score_forgetting',
         'em_distillation', 'multi_student')  # fmt: skip
SMALL = ['net.width=4', 'train.batch=8', 'train.save_every=4', 'evaluation.n=40', 'mesh.cpu_devices=0']
SHORT = dict(distil_back=['method.recorded=2', 'method.apart=2', 'method.interval=2'],
             distribution_matching=['method.pool=8', 'method.steps=2'], em_distillation=['method.moves=1'],
             distribution_matching_2=['method.discriminator.width=4'])  # fmt: skip


def changes(name, home):
  every = [*SMALL, *SHORT.get(name, []), f'teacher.run={home}/teacher']
  return [f'--config.{change}' for change in every]


@pytest.mark.quick('distribution_matching')
@pytest.mark.parametrize('name', NAMES)
def test_the_configs_are_built_and_begin_as_their_teacher(name, tmp_path):
  """Every student and critic is a copy of it; they train in some 400000 examples at most."""
  small = [f'--config.{change}' for change in SMALL]
  record.claim(f'{tmp_path}/teacher', override(from_file('experiments/configs/digits.py'), small))
  config = from_file(f'experiments/configs/fewstep/{name}_digits.py')
  assert config.train.steps * config.train.batch <= 400_000
  method = build(override(config, changes(name, tmp_path))).method
  moved = {phase.role for phase in method.phases} - {'discriminator'}
  assert set(method.copies) == moved and method.loads == ('teacher',)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  home = tmp_path_factory.mktemp('laws')
  config = [f'--config.{change}' for change in (*SMALL, 'train.steps=2', 'train.optimiser.warmup=0')]
  assert main(['train', '--config=experiments/configs/digits.py', f'--workdir={home}/teacher', *config]) == 0
  return home


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_trains_samples_and_evaluates(name, home):
  """A few steps from a small teacher; from what is saved it draws and is measured."""
  line = ['train', f'--config=experiments/configs/fewstep/{name}_digits.py', f'--workdir={home}/{name}']
  few = ['--config.train.steps=8', '--config.train.optimiser.warmup=0']
  assert main([*line, *changes(name, home), *few]) == 0
  assert main(['sample', f'--workdir={home}/{name}', '--n=6', f'--out={home}/{name}/drawn']) == 0
  samples = np.load(f'{home}/{name}/drawn.npz')['samples']
  assert samples.shape == (6, 8, 8, 1) and np.isfinite(samples).all()
  assert main(['evaluate', f'--workdir={home}/{name}']) == 0
  steps = from_file(f'experiments/configs/fewstep/{name}_digits.py').sampling.steps
  assert json.loads(pathlib.Path(f'{home}/{name}/report.json').read_text())['nfe'] == steps
