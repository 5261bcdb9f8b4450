"""The one door: a recipe of this test's own, in a module outside the package, goes through every command."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import diffjax
from diffjax import exact
from diffjax.cli import main
from diffjax.runs import directory, record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build
from diffjax.train.log import read_csv
from diffjax.train.sharding import make_mesh

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()
RECIPE = '''
"""A student between data and a teacher, a critic that follows a buffer of past data."""

import jax
import jax.numpy as jnp

from diffjax import losses
from diffjax.methods import under_solver
from diffjax.train.roles import Buffer, Method, Phase


def tutored(parts, pull=0.5):
  teacher = parts.source('teacher')
  plain = losses.denoising(parts.process, parts.net, parts.kind)

  def student(roles, batch, key):
    values, aux = plain(roles, batch, key)
    x, t = roles['past'], jnp.full((8,), 0.5)
    apart = parts.denoiser(roles['student'])(x, t).x0 - teacher.denoiser(roles['teacher'])(x, t).x0
    return values + pull * jnp.mean(apart**2), aux

  def critic(roles, batch, key):
    return jnp.sum((roles['critic']['centre'] - jnp.mean(roles['past'], 0)) ** 2), {}

  def renew(roles, past, batch, key):
    return 0.9 * past + 0.1 * batch['x'][:8] + 0.01 * jax.random.normal(key, past.shape)

  def denoiser(roles):
    return parts.denoiser(roles['student'])

  return Method(
    phases=(Phase('student', student, parts.optimiser()), Phase('critic', critic, parts.optimiser(), every=2)),
    init=lambda key: {'student': parts.init(key), 'critic': {'centre': jnp.zeros(2)}},
    loads=('teacher',),
    buffers={'past': Buffer(lambda key: jax.random.normal(key, (8, 2)), renew)},
    denoiser=denoiser,
    generator=lambda roles, sampling: under_solver(parts, denoiser(roles), sampling),
  )


def pairless(parts):
  return Method((Phase('student', parts.loss, parts.optimiser()),), needs=('source',))


def moved(parts):
  """No arithmetic of its own: a student that begins as its teacher and is trained by the loss of the config."""
  parts.source('teacher')
  return Method(
    (Phase('student', parts.loss, parts.optimiser()),), copies={'student': 'teacher'}, loads=('teacher',),
    init=lambda key: {}, denoiser=lambda roles: parts.denoiser(roles['student']),
  )
'''
CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='ring8', shape=(2,), classes=0, n=512)
  c.process = dict(name='flow')
  c.net = dict(name='mlp', width=16, depth=1)
  c.loss = dict(name='denoising', kind='velocity')
  c.train = dict(steps=6, batch=16, log_every=3, save_every=3, optimiser=dict(name='adam', schedule='constant'))
  c.sampling = dict(solver='heun', grid='uniform', steps=3)
  c.evaluation = dict(n=64)
  return c
"""


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A directory with the recipe's module on the path, a config, and a trained teacher."""
  home = tmp_path_factory.mktemp('door')
  (home / 'recipes_of_mine.py').write_text(RECIPE)
  (home / 'my_module.py').write_text(next(b for b in README.split('```python\n') if 'def copied' in b).split('```')[0])
  (home / 'tiny.py').write_text(CONFIG)
  sys.path.insert(0, str(home))
  importlib.invalidate_caches()
  assert main(['train', f'--config={home}/tiny.py', f'--workdir={home}/teacher', '--config.seed=7']) == 0
  yield home
  sys.path.remove(str(home))


def command(home, name, *changes):
  method = [f'--config={home}/tiny.py', f'--workdir={home}/{name}', '--config.method=recipes_of_mine.tutored']
  return ['train', *method, f'--config.teacher.run={home}/teacher', *(f'--config.{change}' for change in changes)]


def state(home, name):
  workdir = f'{home}/{name}'
  found = directory.restored(build(record.read_config(workdir)), workdir, make_mesh())
  return found.replace(key=jax.random.key_data(found.key))


@pytest.fixture(scope='module')
def student(home):
  assert main(command(home, 'student', 'train.steps=12')) == 0
  return f'{home}/student'


def refused(capsys, *arguments):
  capsys.readouterr()
  assert main(list(arguments)) == 2
  lines = [line for line in capsys.readouterr().err.splitlines() if line]
  assert len(lines) == 1 and lines[0].startswith('diffjax: '), lines
  return lines[0]


@pytest.mark.slow
def test_all_roles_and_the_buffer_are_one_state(home, student):
  """The teacher is the run's average and does not move, the critic moves every other step, the buffer is kept."""
  end = state(home, 'student')
  assert set(end.roles) == {'student', 'critic', 'teacher'} and set(end.opt) == {'student', 'critic'}
  teacher = state(home, 'teacher').ema['student']
  jax.tree.map(np.testing.assert_array_equal, end.roles['teacher'], next(iter(teacher.values())))
  assert np.abs(end.roles['critic']['centre']).max() > 0 and end.buffers['past'].shape == (8, 2)
  counts = {name: int(jax.tree.leaves(opt)[0]) for name, opt in end.opt.items()}
  assert counts == {'student': 12, 'critic': 6}
  kept = json.loads((home / 'student' / 'config.json').read_text())
  assert kept['teacher']['step'] == 6 and len(kept['teacher']['digest']) == 8
  assert kept['teacher']['config']['seed'] == 7


def test_goes_on_bit_for_bit(home, student):
  """Stopped after 6 of 12 steps, and not: every role, optimiser, average and buffer."""
  assert main(command(home, 'halves', 'train.steps=6')) == 0
  assert main(command(home, 'halves', 'train.steps=12')) == 0
  jax.tree.map(np.testing.assert_array_equal, state(home, 'halves'), state(home, 'student'))


@pytest.mark.slow
def test_goes_on_bit_for_bit_after_sigkill(home):
  """In processes of its own."""
  env = os.environ | dict(PYTHONPATH=f'{ROOT}:{home}')
  line = [sys.executable, '-m', 'diffjax.cli', *command(home, 'killed', 'train.steps=400', 'train.save_every=20')]
  process = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  saved = home / 'killed' / 'checkpoints'
  end = time.time() + 120
  while time.time() < end and not (saved.exists() and any(path.name.isdigit() for path in saved.iterdir())):
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  again = subprocess.run(line, env=env, capture_output=True, text=True, timeout=200)
  assert again.returncode == 0 and 'going on from step' in again.stdout, again.stderr
  assert main(command(home, 'unbroken', 'train.steps=400', 'train.save_every=20')) == 0
  jax.tree.map(np.testing.assert_array_equal, state(home, 'killed'), state(home, 'unbroken'))


def test_samples_evaluates_and_loads(home, student):
  """Sample k is the same from one device, by --seeds on eight, and from the library's generator."""
  line = [sys.executable, '-m', 'diffjax.cli', 'sample', f'--workdir={student}', '--seeds=0-20', f'--out={home}/many']
  env = os.environ | dict(PYTHONPATH=f'{ROOT}:{home}', XLA_FLAGS='')
  eight = [*line, '--config.mesh.cpu_devices=8', '--config.sampling.batch=8']
  done = subprocess.run(eight, env=env, capture_output=True, text=True, timeout=200)
  assert done.returncode == 0, done.stderr
  assert main(['sample', f'--workdir={student}', '--n=21', f'--out={home}/few']) == 0
  many, few = (np.load(f'{home}/{name}.npz')['samples'] for name in ('many', 'few'))
  np.testing.assert_allclose(many, few, atol=1e-5)
  from diffjax.runs.generate import key_batch

  draw = diffjax.generator(student)
  np.testing.assert_allclose(draw(key_batch(0, np.arange(21))), few, atol=1e-5)
  assert draw.nfe == draw.cost == 4  # Heun, three steps; from pure noise and to the data Euler's
  denoise, process, config = diffjax.load(student)
  assert denoise.params.keys() == state(home, 'student').roles['student'].keys()
  assert main(['evaluate', f'--workdir={student}']) == 0
  report = json.loads(pathlib.Path(f'{student}/report.json').read_text())
  assert report['nfe'] == 4 and report['n'] == 64


@pytest.mark.slow
def test_another_teacher_is_noticed(home, student, capsys):
  """By its weights, not by the name of its directory."""
  assert main(['train', f'--config={home}/tiny.py', f'--workdir={home}/other', '--config.seed=8']) == 0
  line = command(home, 'student', 'train.steps=12')
  assert 'teacher.digest is' in refused(capsys, *line, f'--config.teacher.run={home}/other')
  os.rename(home / 'teacher', home / 'elsewhere')
  try:
    assert main([*line, f'--config.teacher.run={home}/elsewhere']) == 0
    assert main(['sample', f'--workdir={student}', '--n=2', f'--out={home}/without']) == 0  # needs no teacher's run
  finally:
    os.rename(home / 'elsewhere', home / 'teacher')


def test_a_closed_form_teaches(home):
  """A target by name, on the process of the run."""
  config = override(from_file(f'{home}/tiny.py'), ['--config.teacher.target=ring8'])
  parts = build(config).parts
  x = np.ones((3, 2), np.float32)
  want = exact.ring8().denoiser(parts.process)(x, 0.5).x0
  np.testing.assert_array_equal(parts.source('teacher').denoiser(())(x, 0.5).x0, want)


def test_a_student_begins_as_its_teacher(home):
  line = [f'--config={home}/tiny.py', f'--workdir={home}/moved', '--config.method=recipes_of_mine.moved']
  assert main(['train', *line, f'--config.teacher.run={home}/teacher', '--config.train.steps=1',
               '--config.train.optimiser.learning_rate=1e-30']) == 0  # fmt: skip
  end = state(home, 'moved')
  jax.tree.map(np.testing.assert_array_equal, end.roles['student'], end.roles['teacher'])


@pytest.mark.slow
def test_a_course_over_the_whole_run_is_not_made_longer(home, capsys):
  """`fixed_length`: a curriculum would have been another from its first step; without it the run goes on."""
  line = [f'--config={home}/tiny.py', f'--workdir={home}/course', '--config.train.save_every=2']
  course = [*line, '--config.method=consistency_training', '--config.loss.kind=x0', '--config.method.last=4']
  assert main(['train', *course, '--config.train.steps=2']) == 0
  told = refused(capsys, 'train', *course, '--config.train.steps=4')
  assert 'config.train.steps: got 4; allowed: 2, over which consistency_training has laid out its course' in told


def test_the_recipe_of_the_readme(home):
  """A copy of a copy: begun elsewhere, it comes nearer to its teacher."""
  line = [f'--config={home}/tiny.py', f'--workdir={home}/copy', '--config.method=my_module.copied']
  more = ['--config.train.steps=60', '--config.train.log_every=10', '--config.train.optimiser.learning_rate=1e-2']
  assert main(['train', *line, *more, f'--config.teacher.run={home}/teacher']) == 0
  losses = [float(row['loss']) for row in read_csv(f'{home}/copy/metrics.csv')]
  assert losses[-1] < 0.5 * losses[0]
  assert diffjax.generator(f'{home}/copy')(jax.random.split(jax.random.key(0), 3)).shape == (3, 2)


REFUSALS = {
  'method=denoisin': "config.method.name: there is no 'denoisin', did you mean 'denoising'?",
  'method=no_such_module.recipe': 'no_such_module cannot be imported',
  'method=recipes_of_mine.nothing': "recipes_of_mine has no function 'nothing'; allowed: a recipe",
  'method.pul=1.': "config.method.pul: there is no 'pul', did you mean 'pull'?",
  'method=recipes_of_mine.pairless': 'config.data: got ring8 without source; allowed with recipes_of_mine.pairless',
  'teacher.run=': 'config.method: teacher: got none; allowed: config.teacher.run',
  'teacher.run=/no/such/run': "config.teacher.run: got '/no/such/run', which holds no run",
  'teacher.step=5': 'config.teacher.step: got 5; allowed in',
  'teacher.ema=3': 'config.teacher.ema: got 3; allowed: -1',
  'process=cosine': 'of another process; allowed: that of this run',
  'data.classes=8': 'of classes 0; allowed: that of this run, 8',
  'teacher.target=ring9': "config.teacher.target.name: there is no 'ring9', did you mean 'ring8'?",
  'sampling.steering=feynman_kac': "config.sampling.steering.name: there is no 'feynman_kac'",
  "sampling.guidance=({'name':'cfgg'},)": "config.sampling.guidance[0].name: there is no 'cfgg'",
  'sampling.guidance=(3,)': 'config.sampling.guidance[0]: got 3; allowed: a name, or a dict',
}


@pytest.mark.parametrize('change', REFUSALS)
def test_refusals(change, home, capsys):
  assert REFUSALS[change] in refused(capsys, *command(home, 'refused', change))
  assert not (home / 'refused').exists()
