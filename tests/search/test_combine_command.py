"""diffjax search --method=checkpoints, on a run in miniature."""

import re

import numpy as np
import pytest

from diffjax.cli import main
from diffjax.train.checkpoint import Checkpoints

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='ring8', shape=(2,), classes=0, n=512)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=16, depth=1)
  c.loss = dict(name='denoising', kind='v')
  optimiser = dict(name='adam', learning_rate=1e-2, schedule='constant')
  c.train = dict(steps=80, batch=32, log_every=40, save_every=20, max_to_keep=9, optimiser=optimiser)
  c.sampling = dict(solver='ddim', grid='uniform', steps=4)
  c.evaluation = dict(n=60)
  return c
"""


@pytest.mark.slow
def test_combines_the_checkpoints_of_a_run_into_one(tmp_path, capsys):
  """What is written is the sum that is told, and draws; what is asked for wrongly is refused in one line."""
  (tmp_path / 'tiny.py').write_text(CONFIG)
  run, out = f'{tmp_path}/run', f'{tmp_path}/out'
  assert main(['train', f'--config={tmp_path}/tiny.py', f'--workdir={run}']) == 0
  search = ['search', f'--workdir={run}', '--method=checkpoints', '--starts=64']
  for line, message in (
    (['--nfe=3'], 'nfe: got 3 with --method=checkpoints; allowed: none'),
    (['--budget=3'], 'allowed: at least 2 checkpoints'),
    (['--penalty=-1'], 'penalty >= 0'),
    (['--since=70'], 'since: got 70; allowed: a step from which on there are at least 2 checkpoints'),
    (['--step=40'], 'step: got 40'),
  ):
    capsys.readouterr()
    assert main([*search, *line, '--budget=20'] if 'budget' not in line[0] else [*search, *line]) == 2
    assert message in capsys.readouterr().err
  assert main([*search, '--budget=20', f'--out={out}']) == 0
  told = capsys.readouterr().out
  figures = [float(x) for x in re.findall(r'(\d+\.\d{4})', told)]
  assert len(figures) == 3 and '4 checkpoints, 20 sums, 64 samples' in told
  kept = np.load(f'{out}/combined.npz')
  assert list(kept['steps']) == [20, 40, 60, 80] and kept['coefficients'].sum() == pytest.approx(1)
  each = [Checkpoints(f'{run}/checkpoints').load(step=step)['roles']['student'] for step in kept['steps']]
  made = Checkpoints(f'{out}/checkpoints').load()
  leaf = lambda tree: np.asarray(tree['out']['kernel'], np.float64)  # noqa: E731
  want = sum(a * leaf(tree) for a, tree in zip(kept['coefficients'], each, strict=True))
  np.testing.assert_allclose(leaf(made['roles']['student']), want, atol=1e-5)
  assert main(['sample', f'--workdir={out}', '--n=5', f'--out={tmp_path}/few']) == 0
  assert np.isfinite(np.load(f'{tmp_path}/few.npz')['samples']).all()
  assert main([*search, '--budget=20', f'--out={out}']) == 2  # it is there
