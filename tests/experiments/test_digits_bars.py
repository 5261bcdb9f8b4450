"""The main job's bars, set before any run, on three seeds."""

import json

import pytest

from diffjax.cli import main
from experiments.tables.digits import bars


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_digits_meet_the_bars(seed, tmp_path):
  workdir = str(tmp_path / 'digits')
  assert main(['train', '--config=experiments/configs/digits.py', f'--workdir={workdir}', f'--config.seed={seed}']) == 0
  assert main(['evaluate', f'--workdir={workdir}']) == 0
  report = json.loads(open(f'{workdir}/report.json').read())
  assert report['nfe'] == 20 and report['n'] == 360
  assert all(bars(report).values()), (bars(report), report)
