import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import training_job as job

from diffjax.commands.start import start
from diffjax.runs.config import defaults
from diffjax.train.sharding import check_batch, make_mesh, state_shardings

SCRIPT = pathlib.Path(job.__file__)


def launch(*args, devices=1, script=SCRIPT):
  compiled_sooner = os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=0'
  flags = f'{compiled_sooner} --xla_force_host_platform_device_count={devices}'
  environment = {**os.environ, 'PYTHONPATH': str(SCRIPT.parents[2]), 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, str(script), *map(str, args)]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process):
  out, err = process.communicate(timeout=500)  # a busy machine, not a bar
  assert process.returncode == 0, err[-3000:]
  return out


def found(process):
  return [line.split('|')[1:] for line in finish(process).splitlines() if line.startswith('found')]


@pytest.mark.slow  # of a network of layers; tests/train/test_sharded.py has the real ones
def test_eight_devices_equal_one():
  """Data, FSDP (in microbatches) and tensor parallel runs end where one device does; the state lies by the rule."""
  lines = found(launch('mesh', devices=8))
  for (roles, ema, *specs), expected in zip(lines, ('', 'fsdp,None', 'fsdp,model'), strict=True):
    assert float(roles) < 1e-5 and float(ema) < 1e-5
    assert specs == [expected] * 3


def test_saved_on_eight_restored_on_fewer(tmp_path):
  """One step after a checkpoint that eight devices wrote, four, two and one agree with eight."""
  lines = found(launch('layout', tmp_path, devices=8))
  for (begin, count, distance), devices in zip(lines, (4, 2, 1), strict=True):
    assert (int(begin), int(count)) == (6, devices) and float(distance) < 1e-5


def free_port():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def pair(workdir, steps, pause=0):
  port = free_port()
  return [launch('split', rank, port, workdir, steps, pause) for rank in (0, 1)]


@pytest.mark.slow
def test_saved_on_eight_restored_by_two_processes(tmp_path):
  """Weights split over fsdp between two processes that read what eight devices of one wrote."""
  finish(launch('layout', tmp_path, devices=8))
  outs = [finish(process) for process in pair(tmp_path / 'pair', 7)]
  assert 'going on from step 6 of 7' in outs[0]
  both, eight = (np.load(tmp_path / name / 'final.npz').values() for name in ('pair', '8'))
  assert all(np.allclose(a, b, atol=1e-5, rtol=0) for a, b in zip(both, eight, strict=True))


@pytest.mark.slow
def test_one_of_two_is_killed(tmp_path):
  """SIGKILL of either process at a random moment, and of the other as a launcher does; restarted they end alike."""
  for process in pair(tmp_path / 'plain', 30):
    finish(process)
  draw = random.Random()
  victim, moment = draw.randrange(2), draw.randrange(2, 28)
  processes = pair(tmp_path / 'killed', 30, 0.1)
  for line in processes[victim].stdout:
    if line.startswith(f'batch {moment}'):
      time.sleep(draw.uniform(0, 0.1))
      break
  for process in (processes[victim], processes[1 - victim]):
    process.kill()
    process.communicate(timeout=60)
  assert processes[victim].returncode == -signal.SIGKILL and not (tmp_path / 'killed' / 'final.npz').exists()
  outs = [finish(process) for process in pair(tmp_path / 'killed', 30)]
  kept = 10 * (moment // 10)  # the save under way may be lost
  begun = re.search(r'going on from step (\d+)', outs[0])
  assert (int(begun[1]) if begun else 0) in (kept, kept - 10, 0), f'killed {victim} at {moment}: {outs[0]}'
  plain, again = (np.load(tmp_path / name / 'final.npz').values() for name in ('plain', 'killed'))
  assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True)), f'killed {victim} at {moment}'


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
  """Five steps, and three more after both processes started again from the checkpoint."""
  port = free_port()
  processes = [launch('pair', rank, port, tmp_path) for rank in (0, 1)]
  for process in processes:
    finish(process)
  both = list(np.load(tmp_path / 'pair.npz').values())
  single = [*job.arrays(job.run(steps=5).state.roles), *job.arrays(job.run(steps=8).state.roles)]
  assert all(np.allclose(a, b, atol=1e-5, rtol=0) for a, b in zip(both, single, strict=True))


@pytest.mark.slow
def test_two_processes_stop_together(tmp_path):
  """SIGTERM to one of two: both save the same step, and exit 0."""
  port = free_port()
  processes = [launch('stop', rank, port, tmp_path) for rank in (0, 1)]
  for line in processes[1].stdout:
    if line.startswith('batch 5'):
      processes[1].send_signal(signal.SIGTERM)
      break
  for process in processes:
    finish(process)
  steps = [int(folder.name) for folder in (tmp_path / 'checkpoints').iterdir() if folder.name.isdigit()]
  assert len(steps) == 1 and 5 < steps[0] < 1000


def test_mesh_fills_and_refuses():
  count = jax.device_count()
  assert dict(make_mesh().shape) == dict(data=count, fsdp=1, model=1)
  for sizes in (dict(data=2 * count), dict(data=-1, model=2 * count), dict(data=0), dict(data=-1, fsdp=-1)):
    with pytest.raises(ValueError, match='mesh: got .*allowed'):
      make_mesh(**sizes)


def test_processes_share_the_batch(monkeypatch):
  """As one of several processes: their devices must all be used, and the batch split between them."""
  monkeypatch.setattr(jax, 'process_count', lambda: 3 * jax.device_count())
  with pytest.raises(ValueError, match=r'mesh: got .* processes: data x fsdp a multiple of it'):
    make_mesh()


@pytest.mark.parametrize(
  'text, got',
  [
    ('localhost:1,2', "'localhost:1,2'"),
    ('localhost:1,2,2', 'process 2 of 2'),
    ('localhost:1,two,0', "'localhost:1,two,0'"),
  ],
)
def test_a_process_beyond_their_number_is_refused(text, got):
  with pytest.raises(ValueError, match=f'distributed: got {got}; allowed: auto, or HOST:PORT,PROCESSES,INDEX'):
    start(defaults(), text)


def abstract(data, fsdp, model):
  return jax.sharding.AbstractMesh((data, fsdp, model), ('data', 'fsdp', 'model'))


def specs(mesh, shapes, **options):
  leaves = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
  return {name: tuple(s.spec) for name, s in state_shardings(mesh, leaves, **options).items()}


def test_rule():
  shapes = dict(kernel=(256, 512), odd=(300, 7), bias=(512,), long=(2**15,), conv=(3, 3, 64, 128), step=())
  assert set(specs(abstract(8, 1, 1), shapes).values()) == {()}
  assert specs(abstract(2, 4, 1), shapes) == dict(
    kernel=(None, 'fsdp'), odd=(), bias=(), long=('fsdp',), conv=(None, None, None, 'fsdp'), step=()
  )
  assert specs(abstract(2, 4, 2), shapes) == dict(
    kernel=('fsdp', 'model'), odd=(), bias=(), long=('fsdp',), conv=(None, None, 'fsdp', 'model'), step=()
  )
  rows = specs(
    abstract(1, 1, 2),
    shapes,
    axes=lambda path, shape: ('model', *(None,) * (len(shape) - 1)) if path == 'kernel' else (None,) * len(shape),
  )
  assert rows['kernel'] == ('model', None) and rows['conv'] == ()


def test_batch_must_divide():
  check_batch(abstract(4, 2, 2), 16)
  with pytest.raises(ValueError, match='batch: got 12 rows; allowed: a multiple of data x fsdp = 8'):
    check_batch(abstract(4, 2, 2), 12)
