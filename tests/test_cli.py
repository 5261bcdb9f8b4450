"""The command line as a user meets it: the main job in miniature, and every refusal one clear line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from diffjax import cli
from diffjax.cli import main
from diffjax.errors import InputError

pytestmark = pytest.mark.usefixtures('plain_pictures')
CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=32, depth=1)
  c.loss = dict(name='denoising', kind='v', drop_cond=.1)
  c.train = dict(steps=30, batch=32, log_every=10, save_every=10, optimiser=dict(name='adam', learning_rate=1e-2))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=4)
  c.evaluation = dict(n=60)
  return c
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'tiny.py'
  path.write_text(CONFIG)
  return str(path)


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
  """A run of the tiny config."""
  workdir = str(tmp_path_factory.mktemp('runs') / 'tiny')
  assert main(['train', f'--config={config}', f'--workdir={workdir}']) == 0
  return workdir


def refused(capsys, *arguments):
  """The one line with which a command ends at status 2."""
  capsys.readouterr()
  assert main(list(arguments)) == 2
  lines = [line for line in capsys.readouterr().err.splitlines() if line]
  assert len(lines) == 1 and lines[0].startswith('diffjax: '), lines
  return lines[0]


def test_train_leaves_what_it_says(trained):
  files = set(os.listdir(trained))
  assert {'config.json', 'metrics.csv', 'loss.png', 'checkpoints', 'timings.json'} <= files
  config = json.loads(open(f'{trained}/config.json').read())
  assert config['sampling']['solver'] == {'name': 'dpmpp_2m'} and config['train']['ema'] == [0.999]
  rows = open(f'{trained}/metrics.csv').read().splitlines()
  assert [row.split(',')[0] for row in rows] == ['step', '10', '20', '30']


def test_a_relative_directory_serves(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(['train', f'--config={config}', '--workdir=runs/tiny', '--config.train.steps=3']) == 0
  assert main(['sample', '--workdir=runs/tiny', '--config.sampling.steps=2']) == 0
  assert (tmp_path / 'runs' / 'tiny' / 'drawn.png').exists()


@pytest.mark.slow
def test_workers_and_prefetch_change_nothing(config, tmp_path, capsys):
  """Two grain workers and batches made ahead end in the arrays of a run with neither; augmentation is the run's own."""
  import jax

  from diffjax.runs import directory, record
  from diffjax.runs.experiment import build
  from diffjax.train.sharding import make_mesh

  net = ['name=unet', 'width=8', 'channel_mult=(1,)', 'blocks_per_level=1', 'attention=()', 'augment=9']
  command = ['train', f'--config={config}', '--config.train.steps=4', '--config.loading.augment=0.5']
  command += [f'--config.net.{option}' for option in net]
  ahead, plain = [*command, f'--workdir={tmp_path}/ahead'], [*command, f'--workdir={tmp_path}/plain']
  done = subprocess.run([sys.executable, '-m', 'diffjax.cli', *ahead, '--config.loading.workers=2'],
                        capture_output=True, text=True, timeout=300)  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert main([*plain, '--config.loading.prefetch=0']) == 0
  experiment = build(record.read_config(f'{tmp_path}/plain'))
  a, b = (directory.restored(experiment, f'{tmp_path}/{name}', make_mesh()) for name in ('ahead', 'plain'))
  jax.tree.map(np.testing.assert_array_equal, (a.roles, a.ema, a.meter), (b.roles, b.ema, b.meter))
  assert np.abs(a.roles['student']['augment']['kernel'] - b.ema['student']['0.999']['augment']['kernel']).max() > 0
  assert main(['sample', f'--workdir={tmp_path}/ahead', '--n=2', '--config.sampling.guidance_scale=2']) == 0
  assert main([*ahead, '--config.loading.workers=0']) == 0
  assert 'loading.augment is 0.5 there and 0.2 here' in refused(capsys, *ahead, '--config.loading.augment=0.2')


def test_a_finished_run_says_so_and_does_nothing(trained, config, capsys):
  before = {f: os.stat(f'{trained}/{f}').st_mtime for f in ('metrics.csv', 'loss.png', 'timings.json')}
  assert main(['train', f'--config={config}', f'--workdir={trained}']) == 0
  assert 'finished' in capsys.readouterr().out
  assert before == {f: os.stat(f'{trained}/{f}').st_mtime for f in before}


def test_sample_writes_what_was_asked_for(trained, tmp_path, capsys):
  out = str(tmp_path / 'three')
  arguments = [
    '--config.sampling.solver.name=unipc',
    '--config.sampling.solver.order=3',
    '--config.sampling.guidance_scale=3',
  ]
  arguments += ['--config.sampling.steps=5', '--labels=0,1,2', f'--out={out}']
  assert main(['sample', f'--workdir={trained}', *arguments]) == 0
  assert 'unipc, 5 evaluations, scale 3' in capsys.readouterr().out
  with np.load(f'{out}.npz') as file:
    assert file['samples'].shape == (3, 8, 8, 1) and list(file['labels']) == [0, 1, 2]
    assert np.abs(file['samples']).max() <= 1
  assert os.path.getsize(f'{out}.png') > 1000


def test_sample_k_depends_on_the_seed_and_k_alone(trained, tmp_path):
  draws = {}
  for name, extra in dict(whole=['--n=20'], parts=['--n=20', '--config.sampling.batch=8'], other=['--n=20', '--seed=1'],
                          few=['--n=10']).items():  # fmt: skip
    assert main(['sample', f'--workdir={trained}', f'--out={tmp_path}/{name}', *extra]) == 0
    draws[name] = np.load(f'{tmp_path}/{name}.npz')['samples']
  np.testing.assert_allclose(draws['parts'], draws['whole'], atol=1e-5)
  np.testing.assert_allclose(draws['few'], draws['whole'][:10], atol=1e-5)
  assert np.abs(draws['other'] - draws['whole']).max() > 0.1


def test_evaluate_reports_every_figure_and_samples_recompute_them(trained):
  assert main(['evaluate', f'--workdir={trained}']) == 0
  report = json.loads(open(f'{trained}/report.json').read())
  for name in ('frechet', 'frechet_floor', 'kernel_distance', 'kernel_distance_interval', 'precision', 'recall',
               'recall_floor', 'label_consistency', 'near_copies', 'near_copies_heldout', 'nfe', 'scale', 'n', 'seed',
               'solver', 'train_steps_per_s', 'sample_images_per_s', 'wall_s', 'versions'):  # fmt: skip
    assert report[name] is not None, name
  assert report['nfe'] == report['cost'] == 4 and report['n'] == 60
  assert set(report['wall_s']) == {'install', 'data', 'compile', 'train', 'sample', 'evaluate'}
  from diffjax.metrics import digits
  from diffjax.metrics.frechet import frechet
  from diffjax.metrics.resample import spread

  with np.load(f'{trained}/samples.npz') as file:
    samples, labels = file['samples'], file['labels']
  images, known = digits.load()[1]
  taken = spread(60, 360, known)  # classes in proportion, not the first 60
  np.testing.assert_array_equal(labels, known[taken])
  again = frechet(digits.features(images[taken]), digits.features(samples))
  assert again == pytest.approx(report['frechet'], rel=1e-6)
  assert np.mean(digits.labels(samples) == labels) == report['label_consistency']


@pytest.mark.parametrize(
  'change, words',
  [
    ('train.stepz=5', ['train.stepz', "did you mean 'steps'"]),
    ('trane.steps=5', ['trane', "did you mean 'train'"]),
    ('train.steps=many', ['train.steps', "'many'", 'int']),
    ('train.steps=0', ['train.steps', 'at least 1']),
    ('sampling.solver.name=dpmp_2m', ['sampling.solver.name', "did you mean 'dpmpp_2m'"]),
    ('sampling.solver.order=3', ['sampling.solver.order', 'dpmpp_2m']),
    ('sampling.grid={"name": "array", "times": (1.0, .5, .6, .1, 0.)}', ['sampling.grid', '0.5 followed by 0.6']),
    ('sampling.grid={"name": "array", "times": (2.0, .5, .3, .1, 0.)}', ['sampling.grid', '2', '0.9946']),
    ('sampling.threshold=hard', ['sampling.threshold', 'static']),
    ('loss.kind=vv', ['loss.kind', "'vv'", 'velocity']),
    ('loss.drop_cond=2.0', ['loss', 'drop_cond', '[0, 1]']),
    ('loss.times=gaussian', ['loss.times', 'logit_normal']),
    ('process.name=cosin', ['process.name', "did you mean 'cosine'"]),
    ('process.offset=-1.0', ['process', 'offset', 'positive']),
    ('net.width=wide', ['net.width', "'wide'"]),
    ('net.name=unett', ['net.name', "did you mean 'unet'"]),
    ('data.name=digit', ['data', "'digits'"]),
    ('data.name=cifar10', ['data', 'cifar10', 'tfds build']),
    ('data.classes=7', ['data.classes', '10']),
    ('data.shape=(28,28,1)', ['data.shape', '(8, 8, 1)']),
    ('train.optimiser.peek=1', ['train.optimiser', 'peek']),
    ('train.ema=(1.5,)', ['train.ema', '1.5']),
    ('mesh.data=64', ['mesh', '64', 'at most']),
    ('loading.workers=-1', ['loading.workers', '-1', 'at least 0']),
    ('loading.prefetch=-2', ['loading.prefetch', '-2', 'at least 0']),
    ('loading.augment=2.0', ['loading.augment', '2.0', 'probability']),
    ('loading.augment=0.1', ['net.augment', '0', 'loading.augment = 0.1', '9']),
    ('loading.flips=True', ['loading.flips', "did you mean 'flip'"]),
    ('train.accumulate=5', ['train.batch', '32', 'accumulate = 5']),
  ],
)
def test_refused_before_anything_is_written(change, words, config, tmp_path, capsys):
  line = refused(capsys, 'train', f'--config={config}', f'--workdir={tmp_path}/run', f'--config.{change}')
  for word in words:
    assert word in line, line
  assert not (tmp_path / 'run').exists()


def test_an_eps_network_cannot_start_where_there_is_no_signal(config, tmp_path, capsys):
  line = refused(capsys, 'train', f'--config={config}', f'--workdir={tmp_path}/run', '--config.process.name=flow',
                 '--config.loss.kind=eps')  # fmt: skip
  assert 'loss.kind' in line and 'velocity' in line


def test_bad_files_are_refused(config, trained, tmp_path, capsys):
  assert 'config' in refused(capsys, 'train', '--config=nowhere.py', f'--workdir={tmp_path}/run')
  (tmp_path / 'empty.py').write_text('x = 1')
  assert 'get_config' in refused(capsys, 'train', f'--config={tmp_path}/empty.py', f'--workdir={tmp_path}/run')
  (tmp_path / 'file').write_text('')
  assert 'written' in refused(capsys, 'train', f'--config={config}', f'--workdir={tmp_path}/file/run')
  near = trained[:-1]
  assert trained in refused(capsys, 'sample', f'--workdir={near}')
  line = refused(capsys, 'train', f'--config={config}', f'--workdir={trained}', '--config.net.width=64')
  assert 'net.width is 32 there and 64 here' in line


def test_labels_and_scale_are_checked(trained, capsys):
  assert '0 to 9' in refused(capsys, 'sample', f'--workdir={trained}', '--labels=3,12')
  assert '0 to 9' in refused(capsys, 'sample', f'--workdir={trained}', '--labels=three')
  assert 'at least 1' in refused(capsys, 'sample', f'--workdir={trained}', '--n=0')
  line = refused(capsys, 'sample', f'--workdir={trained}', '--config.net.width=64')
  assert 'config.net' in line and 'config.sampling' in line
  assert '--config.' in refused(capsys, 'sample', f'--workdir={trained}', '--config.sampling.steps')
  assert '--steps' in refused(capsys, 'sample', f'--workdir={trained}', '--steps=3')
  assert '10, 20, 30' in refused(capsys, 'sample', f'--workdir={trained}', '--step=7')
  assert main(['sample', f'--workdir={trained}', '--step=20', '--n=2']) == 0


@pytest.mark.parametrize(
  'spoil, words', [('nan', ['nan', 'finite']), ('range', ['3.0', '-1 to 1']), ('label', ['label'])]
)
def test_bad_data_is_refused(spoil, words, config, tmp_path, capsys):
  x, y = np.zeros((64, 8, 8, 1), np.float32), np.arange(64) % 10
  if spoil == 'label':
    y[3] = 11
  else:
    x[5, 2, 2] = np.nan if spoil == 'nan' else 3.0
  np.savez(tmp_path / 'own.npz', x=x, y=y)
  line = refused(capsys, 'train', f'--config={config}', f'--workdir={tmp_path}/run', '--config.data.name=npz',
                 f'--config.data.path={tmp_path}/own.npz')  # fmt: skip
  for word in words:
    assert word in line, line


def test_a_toy_without_labels(tmp_path):
  config = 'experiments/configs/toy2d.py'
  small = ['--config.train.steps=20', '--config.evaluation.n=200', '--config.train.optimiser.warmup=0']
  small += ['--config.net.width=16', '--config.net.depth=1', '--config.sampling.steps=4', '--config.train.batch=32']
  assert main(['train', f'--config={config}', f'--workdir={tmp_path}/toy', *small]) == 0
  assert main(['evaluate', f'--workdir={tmp_path}/toy']) == 0
  assert main(['sample', f'--workdir={tmp_path}/toy', '--n=50']) == 0
  assert np.load(tmp_path / 'toy' / 'drawn.npz')['samples'].shape == (50, 2)
  assert 'label_consistency' not in json.loads((tmp_path / 'toy' / 'report.json').read_text())


def run_until_saved(command, checkpoints):
  """Start a training process and wait until a checkpoint lies under its final name."""
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  deadline = time.time() + 120
  while time.time() < deadline and process.poll() is None:
    if checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir()):
      return process
    time.sleep(0.02)
  raise AssertionError(process.communicate()[0])


@pytest.mark.slow  # of the loop, in tests/train/test_loop.py, it is not
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_bit_for_bit(how, config, tmp_path, capsys):
  """The uninterrupted run and one that was killed and started again end in the same arrays."""
  from diffjax.runs import directory, record
  from diffjax.runs.experiment import build
  from diffjax.train.sharding import make_mesh

  long = ['train', f'--config={config}', '--config.train.steps=1000', '--config.train.save_every=200']
  command = [*long, f'--workdir={tmp_path}/killed']
  process = run_until_saved([sys.executable, '-m', 'diffjax.cli', *command], tmp_path / 'killed' / 'checkpoints')
  process.send_signal(how)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == (0 if how == signal.SIGTERM else -how), output
  assert main(command) == 0 and 'going on from step' in capsys.readouterr().out
  assert main([*long, f'--workdir={tmp_path}/whole']) == 0
  experiment = build(record.read_config(f'{tmp_path}/whole'))
  states = [directory.restored(experiment, f'{tmp_path}/{name}', make_mesh()) for name in ('killed', 'whole')]
  import jax

  plain = [
    jax.tree.map(lambda a: jax.random.key_data(a) if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) else a, s)
    for s in states
  ]
  jax.tree.map(np.testing.assert_array_equal, *plain)
  assert open(tmp_path / 'killed' / 'metrics.csv').read() == open(tmp_path / 'whole' / 'metrics.csv').read()


@pytest.mark.slow
def test_two_processes_train_as_one(config, tmp_path):
  """Two real processes over gloo end in the arrays of one process, to 1e-5; files are written once."""
  import jax

  from diffjax.runs import directory, record
  from diffjax.runs.experiment import build
  from diffjax.train.sharding import make_mesh

  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  command = [sys.executable, '-m', 'diffjax.cli', 'train', f'--config={config}', f'--workdir={tmp_path}/two']
  env = os.environ | {'XLA_FLAGS': ''}
  pair = [
    subprocess.Popen(
      [*command, f'--distributed={address},2,{i}'], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=300)[0] for process in pair]
  assert [process.returncode for process in pair] == [0, 0], outputs
  assert main(['train', f'--config={config}', f'--workdir={tmp_path}/one']) == 0
  experiment = build(record.read_config(f'{tmp_path}/one'))
  two, one = (directory.restored(experiment, f'{tmp_path}/{name}', make_mesh(1)) for name in ('two', 'one'))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), two.ema, one.ema)
  rows = open(tmp_path / 'two' / 'metrics.csv').read().splitlines()
  assert [row.split(',')[0] for row in rows] == ['step', '10', '20', '30']


def test_help_teaches(capsys):
  for arguments in (['--help'], ['train', '--help'], ['sample', '--help'], ['evaluate', '--help']):
    with pytest.raises(SystemExit) as ended:
      main(arguments)
    assert ended.value.code == 0
    assert '--workdir' in capsys.readouterr().out


@pytest.mark.parametrize(
  'bug',
  [
    'list(zip((1,), (1, 2), strict=True))',
    'a, b = (1, 2, 3)',
    'import jax.numpy as jnp; jnp.zeros(3).reshape(2)',
    'int("three")',
  ],
)
def test_a_bug_of_ours_keeps_its_traceback(bug, monkeypatch):
  """Only InputError is bad input; another ValueError, raised in a file of ours or by JAX below it, is no refusal."""
  made = {}
  exec(compile(f'def run(options, overrides):\n  {bug}', cli.__file__, 'exec'), made)
  monkeypatch.setattr(cli.COMMANDS['sample'], 'run', made['run'])
  with pytest.raises((ValueError, TypeError)) as raised:
    cli.main(['sample', '--workdir=nowhere'])
  assert not isinstance(raised.value, InputError)


def test_the_traceback_of_bad_input_is_shown_on_demand(monkeypatch, capsys):
  assert cli.main(['sample', '--workdir=nowhere']) == 2 and 'Traceback' not in capsys.readouterr().err
  monkeypatch.setenv('DIFFJAX_TRACEBACK', '1')
  with pytest.raises(InputError, match='workdir'):
    cli.main(['sample', '--workdir=nowhere'])
