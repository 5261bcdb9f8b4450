"""diffjax train --dry_run as a user meets it: a mesh of many devices on this machine, and nothing left behind."""

import os
import re
import subprocess
import sys

import pytest

from diffjax.cli import main

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='imagenet_resized/64x64', shape=(8, 8, 1), classes=0)  # data that is not here
  c.net = dict(name='mlp', width=256, depth=2)
  c.train = dict(batch=2048, optimiser=dict(name='adam'))
  c.mesh = dict(data=-1, fsdp=8)
  return c
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'tiny.py'
  path.write_text(CONFIG)
  return str(path)


def dry_run(config, where, *arguments):
  """The command in a process of its own whose home and working directory are an empty one."""
  command = [sys.executable, '-m', 'diffjax.cli', 'train', f'--config={config}', *arguments]
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  kept = {k: v for k, v in os.environ.items() if k not in ('JAX_COMPILATION_CACHE_DIR', 'XLA_FLAGS')}
  environment = {**kept, 'HOME': str(where), 'PYTHONPATH': root, 'PYTHONDONTWRITEBYTECODE': '1'}
  return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=where, env=environment)


@pytest.mark.slow
def test_256_devices_on_this_one(config, tmp_path):
  """The tables, FLOPs by hand within 3%, and not a file: neither the directory it would train in nor a cache."""
  done = dry_run(config, tmp_path, '--dry_run', '--devices=256', '--workdir=run', '--memory=1')
  assert done.returncode == 0, done.stderr
  out = done.stdout
  assert not list(tmp_path.iterdir())
  assert '256 devices, mesh data=32, fsdp=8, model=1; batch 2048, 8 examples a device' in out
  width, points, waves, rows = 256, 64, 32, 2048
  kernels = dict(embed=2 * waves * width, first=points * width, hidden=width**2, out=width * points)
  count = sum(kernels.values()) + 4 * width + points
  assert f'{count:,} parameters' in out
  whole, each = map(float, re.search(r'  parameters +([\d.]+) +([\d.]+)\n', out).groups())
  assert whole == pytest.approx(4 * count / 2**20, abs=0.051) and whole / 8 - 0.1 < each <= whole / 2
  forward, errors = sum(kernels.values()), kernels['hidden'] + kernels['out']  # no error goes back into x and t
  by_hand = 2 * rows * (2 * forward + errors)
  work = float(re.search(r'FLOPs of a step: (\S+) in all', out)[1])
  assert work == pytest.approx(by_hand, rel=2e-3)
  by_xla = float(re.search(r'that XLA counts: (\S+)', out)[1])
  assert by_hand / 256 < by_xla < 2 * by_hand / 256  # element-wise work too: the update of split parameters


@pytest.fixture
def here():
  """A dry run in this process, on its one device."""
  import jax

  assert jax.device_count() == 1
  return lambda config, *arguments: main(['train', f'--config={config}', '--config.mesh.fsdp=1', *arguments])


def test_what_does_not_fit_is_said(here, config, capsys):
  """State alone, then activations; the knob that is named is the one that helps."""
  assert here(config, '--dry_run=shapes', '--memory=.01', '--config.net.width=1024') == 2
  told = capsys.readouterr()
  assert 'config.mesh.fsdp above 1' in told.err and 'compiled' not in told.out
  assert re.search(r'got 0.01 GiB a device; allowed: at least 0.0\d', told.err) and told.err.count('\n') == 1
  wide = ('--dry_run', '--memory=.04', '--config.train.batch=16384')
  assert here(config, *wide) == 2
  line = capsys.readouterr().err
  assert 'activations' in line and 'config.train.accumulate above 1' in line
  assert 'config.net.dtype=bfloat16' in line and 'remat' not in line  # an MLP knows no remat
  assert here(config, *wide, '--config.train.accumulate=8') == 0


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--workdir=run', '--devices=8'], ['devices', '8', '--dry_run']),
    (['--dry_run', '--memory=-1'], ['memory', '-1', 'positive']),
    ([], ['workdir', '--dry_run']),
    (['--dry_run', '--devices=9'], ['devices', '9']),
    (['--dry_run', '--config.train.accumulate=3'], ['train.batch', '2048']),
  ],
)
def test_refusals(arguments, words, here, config, capsys):
  assert here(config, *arguments) == 2
  line = capsys.readouterr().err
  assert line.count('\n') == 1
  for word in words:
    assert word in line


def test_a_mesh_that_cannot_be_is_refused_as_in_training(config, tmp_path):
  done = dry_run(config, tmp_path, '--dry_run', '--devices=12')
  assert done.returncode == 2 and 'a product that divides the 12' in done.stderr and done.stderr.count('\n') == 1
