"""`diffjax evaluate` on data of any shape and order: the subset it takes, the figures and the pictures it leaves."""

import json
import os

import numpy as np
import pytest

from diffjax.cli import main
from diffjax.runs import examples, plots

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='npz', path='{path}', shape={shape}, classes={classes})
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=8, depth=1)
  c.loss = dict(name='denoising', kind='v')
  c.train = dict(steps=2, batch=16, optimiser=dict(name='adam', learning_rate=1e-3))
  c.sampling = dict(solver='ddim', grid='uniform', steps=2)
  c.evaluation = dict(n=40)
  return c
"""


def trained(path, shape, classes):
  """A run on class-sorted sets, three classes of 40 held-out examples."""
  rng = np.random.default_rng(0)
  for split, each in (('train', 60), ('test', 40)):
    y = np.repeat(np.arange(3), each)
    x = np.tanh(rng.standard_normal((3 * each, *shape)) / 3 + (y[:, None] - 1).reshape(-1, *[1] * len(shape)))
    np.savez(path / f'{split}.npz', x=x.astype(np.float32), **({'y': y} if classes else {}))
  config, workdir = path / 'config.py', str(path / 'run')
  config.write_text(CONFIG.format(path=path / '{split}.npz', shape=shape, classes=classes))
  assert main(['train', f'--config={config}', f'--workdir={workdir}']) == 0
  return workdir


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  """A run on images of two channels."""
  return trained(tmp_path_factory.mktemp('images'), (4, 4, 2), 3)


@pytest.mark.parametrize(
  ('shape', 'classes'),
  [
    ((4, 4, 2), 3),
    pytest.param((1,), 0, marks=pytest.mark.slow),
    pytest.param((2,), 3, marks=pytest.mark.slow),
    pytest.param((5,), 0, marks=pytest.mark.slow),
    pytest.param((4, 4, 4), 0, marks=pytest.mark.slow),
  ],
)
def test_data_of_any_shape_have_figures_and_pictures(shape, classes, tmp_path, request):
  workdir = request.getfixturevalue('images') if shape == (4, 4, 2) else trained(tmp_path, shape, classes)
  assert main(['evaluate', f'--workdir={workdir}']) == 0
  report = json.loads(open(f'{workdir}/report.json').read())
  assert report['n'] == report['m'] == 40 and np.isfinite(report['frechet_floor'])
  drawn = {'samples.png'} | ({'trajectory.png'} if len(shape) == 3 else set())
  assert drawn <= set(os.listdir(workdir))
  with np.load(f'{workdir}/samples.npz') as file:
    assert file['samples'].shape == (40, *shape)
    if classes:  # of a class-sorted set every class, in proportion
      assert sorted(np.bincount(file['labels'])) == [13, 13, 14]


def test_likelihood_is_reported_with_its_error_and_evaluations(images, capsys):
  """Bits of a density, as these data are continuous, and near those of the Gaussian that an untrained network is."""
  assert main(['evaluate', f'--workdir={images}', '--likelihood']) == 0
  told = json.loads(open(f'{images}/report.json').read())['likelihood']
  assert told['n'] == 40 and told['given_up'] == 0 and told['levels'] is None and told['divergence'] == 'rademacher'
  assert np.isfinite(told['bits']) and 0 < told['se'] < 1 and 7 <= told['nfe'] <= told['nfe_max']
  assert told['cost'] == pytest.approx(2 * told['nfe'])
  assert f'{told["bits"]:.4f} +- {told["se"]:.4f} bits a dimension of 40 examples' in capsys.readouterr().out
  assert main(['evaluate', f'--workdir={images}', '--likelihood=hutch']) == 2
  assert "divergence: got 'hutch'; allowed: exact, rademacher" in capsys.readouterr().err


def test_classification_is_reported(images, capsys):
  """With its error and evaluations: 3 classes for a quarter of the draws, 2 for the rest."""
  assert main(['evaluate', f'--workdir={images}', '--classify=8']) == 0
  told = json.loads(open(f'{images}/report.json').read())['classification']
  assert told['n'] == 40 and told['nfe'] == 3 * 2 + 2 * 6 and 0 <= told['accuracy'] <= 1
  assert 'of 40 examples told their class, 18 evaluations each' in capsys.readouterr().out


@pytest.mark.parametrize('shape', [(1,), (2,), (5,), (3, 4), (4, 4, 1), (4, 4, 2), (4, 4, 3), (2, 4, 4, 3)])
def test_samples_of_any_shape_have_a_picture(shape, tmp_path):
  from diffjax.commands.draw import picture

  x = np.random.default_rng(1).uniform(-1, 1, (12, *shape)).astype(np.float32)
  picture(str(tmp_path / 'alone.png'), x, np.arange(12) % 3)
  picture(str(tmp_path / 'beside.png'), x, None, held=x[:5])
  for name in ('alone.png', 'beside.png'):
    assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


def test_a_picture_that_fails_costs_no_figure(images, monkeypatch, capsys):
  def fails(*_, **__):
    raise IndexError('too few axes')

  for name in ('image_grid', 'trajectory'):
    monkeypatch.setattr(plots, name, fails)
  assert main(['evaluate', f'--workdir={images}', '--config.evaluation.n=39']) == 0
  assert json.loads(open(f'{images}/report.json').read())['n'] == 39
  told = capsys.readouterr().err
  assert 'samples.png: no picture (IndexError: too few axes)' in told and 'trajectory.png: no picture' in told


@pytest.mark.parametrize('classes', [0, 3])
def test_held_out_subset_is_the_same_for_every_run_and_in_proportion(classes, tmp_path):
  """Whatever the seed of the run, and by the data's classes where the config ignores them."""
  from diffjax.runs.config import checked
  from diffjax.runs.experiment import build

  y = np.repeat(np.arange(3), [60, 30, 30])
  x = np.stack([y, np.arange(120)], 1).astype(np.float32)
  np.savez(tmp_path / 'test.npz', x=x, y=y)
  parts = []
  for seed in (0, 1):
    what = build(checked(dict(
      seed=seed, data=dict(name='npz', path=str(tmp_path / 'test.npz'), shape=(2,), classes=classes), net='mlp',
    )))  # fmt: skip
    source = examples.dataset(what, 'test')
    parts.append(examples.held_out(what, source, 20))
    np.testing.assert_array_equal(examples.held_out(what, source, 500)['x'], x)
  points, again = (part['x'] for part in parts)
  labels = parts[0].get('cond')
  np.testing.assert_array_equal(points, again)
  np.testing.assert_array_equal(np.bincount(points[:, 0].astype(int)), [10, 5, 5])
  assert labels is None if not classes else (labels == points[:, 0]).all()
