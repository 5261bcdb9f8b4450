"""The persistent cache: a second process of the main job reaches its first step in a fraction of the first's time."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_second_process_compiles_nothing_again(tmp_path):
  """Seconds from data to the end of the first step, digits.py at its full size: second <= 30% of first."""
  users = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '0', 'XLA_FLAGS': '', 'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache')}
  environment = {**os.environ, **users, 'PYTHONPATH': str(ROOT)}
  taken = []
  for name in ('first', 'second'):
    command = [sys.executable, '-m', 'diffjax.cli', 'train', f'--config={ROOT}/experiments/configs/digits.py',
               f'--workdir={tmp_path}/{name}', '--config.train.steps=3',
               '--config.train.optimiser.warmup=0']  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    taken.append(json.loads((tmp_path / name / 'timings.json').read_text())['compile'])
  assert taken[1] <= 0.3 * taken[0], taken
