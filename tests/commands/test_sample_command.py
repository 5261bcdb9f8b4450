"""`diffjax sample` and `evaluate` on any number of devices and processes: the same images, files written once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from diffjax.cli import main
from diffjax.runs.parts import pixels

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.net = dict(name='mlp', width=256, depth=1)
  c.loss = dict(name='denoising', kind='v', drop_cond=.1)
  c.train = dict(steps=20, batch=32, log_every=10, save_every=10, optimiser=dict(name='adam', learning_rate=1e-2))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=4, guidance_scale=1.5)
  c.evaluation = dict(n=60)
  return c
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  home = tmp_path_factory.mktemp('sample')
  (home / 'tiny.py').write_text(CONFIG)
  assert main(['train', f'--config={home}/tiny.py', f'--workdir={home}/run']) == 0
  return str(home / 'run')


def arrays(path):
  with np.load(path) as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope='module')
def whole(trained):
  """Samples 0 to 19 on the devices of this process."""
  assert main(['sample', f'--workdir={trained}', '--n=20', f'--out={trained}/whole']) == 0
  return arrays(f'{trained}/whole.npz')


@pytest.mark.slow
def test_examples_are_translated(trained, capsys):
  """By the run itself under their own labels they come back, under another they do not; solvers must draw noise."""
  from diffjax.metrics import digits

  source = [f'--workdir={trained}', f'--source={trained}', '--n=12', '--config.sampling.guidance_scale=1']
  noisy = '--config.sampling.solver=ddpm'
  assert main(['sample', *source, noisy, f'--out={trained}/same']) == 0
  (_, _), (held, labels) = digits.load()
  same = arrays(f'{trained}/same.npz')
  np.testing.assert_array_equal(same['labels'], labels[:12])
  np.testing.assert_allclose(same['samples'], held[:12], atol=2e-4)
  assert main(['sample', *source, noisy, '--labels=3', f'--out={trained}/other']) == 0
  assert np.abs(arrays(f'{trained}/other.npz')['samples'] - held[:12]).max() > 1e-2
  assert main(['sample', *source]) == 2 and 'a row without noise' in capsys.readouterr().err
  assert main(['sample', *source, noisy, '--seeds=0-3']) == 2


def command(workdir, *options):
  return [sys.executable, '-m', 'diffjax.cli', options[0], f'--workdir={workdir}', *options[1:]]


def started(line, devices=1, **environment):
  compiled_sooner = os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=0'
  flags = f'{compiled_sooner} --xla_force_host_platform_device_count={devices}'
  environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS='cpu', PYTHONPATH=os.getcwd()) | environment
  return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def pair(line):
  """Two processes that know of each other."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  return [started([*line, f'--distributed={address},2,{i}']) for i in range(2)]


def finish(*processes):
  for process in processes:
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
  return output


@pytest.mark.slow
def test_seeds_are_the_samples_of_n(trained, whole, tmp_path):
  for seeds, places in (('0-19', slice(20)), ('3-6,9,15-16', [3, 4, 5, 6, 9, 15, 16])):
    assert main(['sample', f'--workdir={trained}', f'--seeds={seeds}', f'--out={tmp_path}/{seeds}']) == 0
    found = arrays(tmp_path / f'{seeds}.npz')
    np.testing.assert_array_equal(found['arr_0'], pixels(whole['samples'][places]))
    np.testing.assert_array_equal(found['arr_1'], (np.arange(20) % 10)[places])


def test_batch_seven_is_batch_sixty_four(trained, whole, tmp_path):
  for batch in (7, 64):
    line = ['sample', f'--workdir={trained}', '--n=20', f'--config.sampling.batch={batch}', f'--out={tmp_path}/{batch}']
    assert main(line) == 0
    np.testing.assert_allclose(arrays(tmp_path / f'{batch}.npz')['samples'], whole['samples'], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_random_labels_are_functions_of_k(trained, tmp_path):
  labels = {}
  for name, options in dict(many=['--seeds=0-399'], few=['--seeds=30-39'], other=['--seeds=0-399', '--seed=1']).items():
    line = [*options, '--labels=random', '--config.sampling.steps=1', f'--out={tmp_path}/{name}']
    assert main(['sample', f'--workdir={trained}', *line]) == 0
    labels[name] = arrays(tmp_path / f'{name}.npz')['arr_1']
  np.testing.assert_array_equal(labels['few'], labels['many'][30:40])
  counts = np.bincount(labels['many'], minlength=10)
  assert len(counts) == 10 and np.sum((counts - 40) ** 2 / 40) < 27.9  # chi-squared with 9 degrees at p = .001
  assert np.mean(labels['many'] == labels['other']) < 0.2


@pytest.mark.parametrize('text', ['', 'a', '5-4', '1,1', '0-3,3-5', '3,1-2', '-3', '1-2-3', '0-', '0-9999999999'])
def test_bad_seeds_are_refused(text, trained, capsys):
  assert main(['sample', f'--workdir={trained}', f'--seeds={text}']) == 2
  line = capsys.readouterr().err
  assert line.startswith(f'diffjax: seeds: got {text!r}; allowed: ') and line.count('\n') == 1
  assert not os.path.exists(f'{trained}/seeds')


def test_another_draw_is_refused(trained, tmp_path, capsys):
  line = ['sample', f'--workdir={trained}', '--seeds=0-4', f'--out={tmp_path}/out']
  assert main(line) == 0
  before = os.stat(tmp_path / 'out.npz').st_mtime_ns
  for option, words in {
    '--config.sampling.guidance_scale=3': 'guidance.guidance_scale is 1.5 there and 3.0 here',
    '--config.sampling.steps=5': 'solver.steps is 4 there and 5 here',
    '--labels=3': "labels is None there and '3' here",
    '--step=10': 'checkpoint.step is 20 there and 10 here',
    '--seeds=0-5': "seeds is '0-4' there and '0-5' here",
  }.items():
    capsys.readouterr()
    assert main([*line, option]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count('\n') == 1, told
  assert main(line) == 0 and os.stat(tmp_path / 'out.npz').st_mtime_ns == before
  assert main(['sample', f'--workdir={trained}', '--seeds=0-4', '--n=3']) == 2


@pytest.mark.slow
def test_eight_devices_and_two_processes_draw_the_same(trained, whole, tmp_path):
  """Parameters split over fsdp too, batches of 7 (rounded up to 8); two processes write one report, with the figures
  of one."""
  split = ['--config.mesh.fsdp=2', '--config.sampling.batch=7']
  finish(started(command(trained, 'sample', '--n=20', f'--out={tmp_path}/eight', *split), devices=8))
  finish(*pair(command(trained, 'sample', '--n=20', f'--out={tmp_path}/two', *split)))
  for name in ('eight', 'two'):
    found = arrays(tmp_path / f'{name}.npz')
    np.testing.assert_allclose(found['samples'], whole['samples'], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(found['labels'], whole['labels'])
  assert main(['evaluate', f'--workdir={trained}']) == 0
  one = json.loads(open(f'{trained}/report.json').read())
  os.remove(f'{trained}/report.json')
  finish(*pair(command(trained, 'evaluate')))
  two = json.loads(open(f'{trained}/report.json').read())
  for name in ('frechet', 'kernel_distance', 'recall', 'near_copies'):
    assert two[name] == pytest.approx(one[name], abs=1e-3), name
  assert two['device'].startswith('2 x')


@pytest.mark.slow
def test_killed_processes_leave_parts_that_one_goes_on_from(trained, tmp_path):
  """kill -9 to both of two in the middle; one process finishes, and all is as if nothing had been."""
  line = ['--seeds=0-2999', '--config.sampling.batch=16', '--config.sampling.steps=40']
  both = pair(command(trained, 'sample', *line, f'--out={tmp_path}/out'))
  deadline = time.time() + 200
  while time.time() < deadline and not list(tmp_path.glob('out/part-*')) and all(p.poll() is None for p in both):
    time.sleep(0.002)
  for process in both:
    process.send_signal(signal.SIGKILL)
  outputs = [process.communicate()[0] for process in both]
  left = {file.name: file.read_bytes() for file in tmp_path.glob('out/part-*')}
  assert 0 < len(left) < 6 and not (tmp_path / 'out.npz').exists(), outputs
  line[1] = '--config.sampling.batch=500'
  assert main(['sample', f'--workdir={trained}', *line, f'--out={tmp_path}/out']) == 0
  assert main(['sample', f'--workdir={trained}', *line, f'--out={tmp_path}/whole']) == 0
  assert {name: (tmp_path / 'out' / name).read_bytes() for name in left} == left
  found, wanted = arrays(tmp_path / 'out.npz'), arrays(tmp_path / 'whole.npz')
  np.testing.assert_array_equal(found['arr_1'], wanted['arr_1'])
  apart = found['arr_0'] != wanted['arr_0']  # where 1e-5 crosses a rounding boundary
  assert np.abs(found['arr_0'].astype(int) - wanted['arr_0']).max() <= 1 and apart.mean() < 127.5 * 1e-5 * 2


def test_samples_begin_from_a_source(trained, tmp_path, capsys):
  """Begun with hardly any noise they are the source; another strength, or another file, is another draw."""
  source = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
  np.savez(tmp_path / 'one.npz', source)
  begin = [f'--config.sampling.source={tmp_path}/one.npz', '--config.sampling.strength=0.003']
  line = ['sample', f'--workdir={trained}', '--seeds=0-4', f'--out={tmp_path}/out', *begin]
  assert main(line) == 0
  assert np.abs(arrays(tmp_path / 'out.npz')['arr_0'].astype(int) - source).max() < 12
  capsys.readouterr()
  assert main([*line, '--config.sampling.strength=0.5']) == 2
  assert 'solver.strength is 0.003 there and 0.5 here' in capsys.readouterr().err
  np.savez(tmp_path / 'one.npz', 255 - source)
  assert main(line) == 2
