"""Real processes that find each other, or do not: every end is one line, within the time that was given."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from diffjax.cli import main

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.net = dict(name='mlp', width=32, depth=1)
  c.loss = dict(name='denoising', kind='v', drop_cond=.1)
  c.train = dict(steps=600, batch=32, log_every=50, save_every=50, optimiser=dict(name='adam', learning_rate=1e-3))
  return c
"""
MARGIN = 60  # seconds to start Python and JAX on a busy machine


@pytest.fixture
def train(tmp_path):
  (tmp_path / 'tiny.py').write_text(CONFIG)
  return [sys.executable, '-m', 'diffjax.cli', 'train', f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/run']


def free_address():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return f'localhost:{free.getsockname()[1]}'


def started(line, **environment):
  environment = os.environ | dict(JAX_PLATFORMS='cpu', PYTHONPATH=os.getcwd()) | environment
  return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(process, seconds):
  """The exit status, and what it said of its own."""
  err = process.communicate(timeout=seconds)[1]
  return process.returncode, [line for line in err.splitlines() if line.startswith('diffjax: ')], err


@pytest.mark.parametrize(
  'option, word',
  [
    ('--distributed=somewhere', "'somewhere'"),
    ('--distributed=host:80,2', "'host:80,2'"),
    ('--distributed=host,2,0', "'host,2,0'"),
    ('--distributed=host:80,2,two', "'host:80,2,two'"),
    ('--distributed=host:80,2,2', 'process 2 of 2'),
  ],
)
def test_what_names_no_processes_is_refused(option, word, train, tmp_path, capsys):
  assert main([*train[3:], option]) == 2
  told = capsys.readouterr().err
  assert told.startswith('diffjax: distributed: got ') and word in told and told.count('\n') == 1
  assert main([*train[3:], '--distributed=host:80,2,0', '--timeout=0']) == 2
  assert 'timeout: got 0; allowed' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_port_in_use_is_refused(train, capsys):
  with socket.create_server(('', 0)) as taken:
    assert main([*train[3:], f'--distributed=localhost:{taken.getsockname()[1]},2,0']) == 2
  told = capsys.readouterr().err
  assert 'distributed: got port' in told and 'allowed: a free one' in told and told.count('\n') == 1


@pytest.mark.parametrize('index', [1, pytest.param(0, marks=pytest.mark.slow)])
def test_who_waits_in_vain_names_the_address(index, train, tmp_path):
  """A process that finds no coordinator, and a coordinator to whom no one comes."""
  address = free_address()
  began = time.time()
  status, told, err = lines(started([*train, f'--distributed={address},2,{index}', '--timeout=3']), 3 + MARGIN)
  assert status == 1 and time.time() - began < 3 + MARGIN
  assert len(told) == 1 and address in told[0] and 'within 3 s' in told[0], err
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_one_too_many_is_told_which_address_it_joined(train):
  """JAX ends it, by a stack of C++ frames; our line stands above them. The two go on."""
  address = free_address()
  line = [*train, '--config.train.steps=20', '--timeout=40']
  pair = [started([*line, f'--distributed={address},2,{i}']) for i in range(2)]
  status, _, err = lines(started([*line, f'--distributed={address},3,2']), 40 + MARGIN)
  assert status != 0 and f'joining {address} as process 2 of 3' in err
  for process in pair:
    status, told, err = lines(process, 120)
    assert status == 0 and not told, err


@pytest.mark.slow
def test_auto_without_a_cluster_is_refused(train):
  status, told, err = lines(started([*train, '--distributed=auto', '--timeout=20']), 20 + MARGIN)
  assert status == 2 and len(told) == 1 and "got 'auto'" in told[0], err


@pytest.mark.slow
def test_auto_finds_the_processes_of_slurm(train, tmp_path):
  """The environment that srun sets for two tasks on one node."""
  slurm = dict(
    SLURM_JOB_ID=str(os.getpid()), SLURM_STEP_NODELIST='localhost', SLURM_NTASKS='2', SLURM_STEP_NUM_TASKS='2'
  )
  line = [*train, '--config.train.steps=20', '--distributed=auto']
  pair = [started(line, **slurm, SLURM_PROCID=str(i), SLURM_LOCALID=str(i)) for i in range(2)]
  for process in pair:
    status, told, err = lines(process, 120)
    assert status == 0 and not told, err
  assert (tmp_path / 'run' / 'checkpoints' / '20').exists()


@pytest.mark.slow
@pytest.mark.parametrize('victim, how', [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_lost_process_ends_the_other_and_one_goes_on_alone(victim, how, train, tmp_path):
  """Killed, or standing still: the other ends within the timeout, and the last checkpoint serves a single process."""
  timeout, address = 20, free_address()
  pair = [started([*train, f'--distributed={address},2,{i}', f'--timeout={timeout}']) for i in range(2)]
  saved = pathlib.Path(tmp_path / 'run' / 'checkpoints')
  while not (saved.exists() and any(p.name.isdigit() for p in saved.iterdir())):
    assert all(process.poll() is None for process in pair), pair[0].communicate()
    time.sleep(0.05)
  pair[victim].send_signal(how)
  began = time.time()
  status, told, err = lines(pair[1 - victim], timeout + 20)
  seconds = time.time() - began
  pair[victim].kill()
  assert status != 0 and seconds < timeout + 10, (status, seconds)
  if status > 0:
    assert len(told) == 1 and 'lost another' in told[0], err
  else:  # JAX was quicker
    assert 'another task died' in err
  assert json.loads((tmp_path / 'run' / 'config.json').read_text())['train']['steps'] == 600
  again = subprocess.run(
    train, capture_output=True, text=True, timeout=200, env=os.environ | dict(PYTHONPATH=os.getcwd())
  )
  assert again.returncode == 0 and 'going on from step' in again.stdout, again.stderr
  assert (saved / '600').exists()
