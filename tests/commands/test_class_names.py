"""What the classes are called goes from the folders into the run, its report and its pictures; others are refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from diffjax import metrics
from diffjax.cli import main
from diffjax.data import load
from diffjax.runs import plots

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='folder', path='{path}/{{split}}', size=4, channels=1, shape=(4, 4, 1), classes=3)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=16, depth=1)
  c.train = dict(steps=2, batch=8, log_every=1, save_every=2)
  c.sampling = dict(solver='ddim', grid='uniform', steps=2)
  c.evaluation = dict(n=48)
  return c
"""
NAMES = ('1', '2', '10')


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  """Folders of three classes, other folders for the test, and a run on the first."""
  base, rng = tmp_path_factory.mktemp('named'), np.random.RandomState(0)
  for split, names in dict(train=NAMES, test=NAMES, other=('1', '2', '11')).items():
    for name in names:
      (base / split / name).mkdir(parents=True)
      for i in range(16):
        Image.fromarray(rng.randint(256, size=(4, 4)).astype(np.uint8)).save(base / split / name / f'{i}.png')
  (base / 'tiny.py').write_text(CONFIG.format(path=base))
  assert main(['train', f'--config={base}/tiny.py', f'--workdir={base}/run']) == 0
  return base


def refused(capsys, *arguments):
  capsys.readouterr()
  assert main(list(arguments)) == 2
  return capsys.readouterr().err


def captions(monkeypatch):
  """What stands under the pictures drawn from now on; no figures are computed."""
  seen = []
  monkeypatch.setattr(plots, 'image_grid', lambda path, images, labels=None, columns=10: seen.append(labels))
  monkeypatch.setattr(metrics, 'evaluate', lambda drawn, *_, **__: dict(n=len(drawn)))
  return seen


def test_a_run_keeps_them_in_natural_order(base, capsys):
  assert json.loads((base / 'run' / 'config.json').read_text())['data']['names'] == list(NAMES)
  train = ['train', f'--config={base}/tiny.py', f'--workdir={base}/run']
  assert main(train) == 0 and 'finished' in capsys.readouterr().out  # the same folders: the same run
  line = refused(capsys, *train, "--config.data.names=('1','10','2')")
  assert "('1', '2', '10') there and ('1', '10', '2') here" in line


@pytest.mark.slow
def test_they_stand_under_pictures_and_in_the_report(base, monkeypatch):
  seen = captions(monkeypatch)
  assert main(['sample', f'--workdir={base}/run', '--labels=2,0,2']) == 0
  assert seen == [['10', '1', '10']]
  assert main(['evaluate', f'--workdir={base}/run']) == 0
  assert set(seen[1]) <= set(NAMES) and seen[1][0] == '1'
  assert json.loads((base / 'run' / 'report.json').read_text())['names'] == list(NAMES)


def test_what_sample_writes_is_data(base):
  for flags, name in ((['--n=6'], 'few'), (['--seeds=0-5'], 'many')):
    assert main(['sample', f'--workdir={base}/run', f'--out={base}/{name}', *flags]) == 0
    data = load('npz', path=f'{base}/{name}.npz', classes=3, names=NAMES)
    assert data.shape == (4, 4, 1) and data.names == NAMES
    np.testing.assert_array_equal(data.arrays()['cond'], np.arange(6) % 3)


def test_other_folders_are_refused(base, capsys, tmp_path):
  """At an evaluation, and where a stopped run goes on; both names are told."""
  line = refused(capsys, 'evaluate', f'--workdir={base}/run', '--config.evaluation.split=other')
  assert "'11'" in line and "'10'" in line
  shutil.copytree(base / 'other', tmp_path / 'train')
  (tmp_path / 'tiny.py').write_text(CONFIG.format(path=base))
  line = refused(capsys, 'train', f'--config={tmp_path}/tiny.py', f'--workdir={base}/run',
                 f'--config.data.path={tmp_path}/{{split}}')  # fmt: skip
  assert "('1', '2', '10') there and ('1', '2', '11') here" in line


def test_a_run_without_names_is_another_run(base, capsys, tmp_path):
  """Which folder was which label is not known of it."""
  shutil.copytree(base / 'run', tmp_path / 'run')
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  del config['data']['names']
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
  line = refused(capsys, 'train', f'--config={base}/tiny.py', f'--workdir={tmp_path}/run')
  assert "data.names is None there and ('1', '2', '10') here" in line
