"""The main job's bars, set before any run, on three seeds, by the commands that a user types."""

import json
import subprocess
import sys

import pytest

from experiments.tables.digits import bars


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_digits_meet_the_bars(seed, tmp_path):
  workdir = str(tmp_path / 'digits')
  diffjax = [sys.executable, '-m', 'diffjax.cli']  # a process of its own: it splits the CPU as the config says
  train = ['train', '--config=experiments/configs/digits.py', f'--workdir={workdir}', f'--config.seed={seed}']
  subprocess.run([*diffjax, *train], check=True)
  subprocess.run([*diffjax, 'evaluate', f'--workdir={workdir}'], check=True)
  report = json.loads(open(f'{workdir}/report.json').read())
  assert report['nfe'] == 20 and report['n'] == 360
  assert all(bars(report).values()), (bars(report), report)
