"""The toys have the moments of their formulas, and labels that say where a point lies."""

import numpy as np
import pytest

from diffjax.data import load
from diffjax.data.toys import __all__ as names

# E x^2 and E y^2 in closed form; all toys but the roll have mean 0
SECOND = dict(
  ring8=(2 + 0.15**2, 2 + 0.15**2),
  moons=(0.75 + 0.05**2, 0.5 + 1 / 16 - 1 / np.pi + 0.05**2),
  checkerboard=(4 / 3, 4 / 3),
  pinwheel=(2.2, 2.2),
)


def close(values, mean):
  """The sample mean lies within six of its standard errors."""
  return abs(values.mean() - mean) <= 6 * values.std() / np.sqrt(len(values))


def points(name, split='train', **options):
  arrays = load(name, split, **options).arrays()
  return arrays['x'].astype(np.float64), arrays.get('cond')


@pytest.mark.parametrize('name', names)
def test_shapes(name):
  toy = load(name, n=100)
  assert (toy.size, toy.shape) == (100, (2,))
  x, label = points(name)
  assert np.isfinite(x).all() and np.abs(x).max() < 5
  if toy.classes is None:
    assert label is None
  else:
    counts = np.bincount(label, minlength=toy.classes)
    assert len(counts) == toy.classes
    for k in range(toy.classes):
      assert close((label == k).astype(float), 1 / toy.classes)


@pytest.mark.parametrize('name', SECOND)
def test_moments(name):
  x, _ = points(name)
  for i in (0, 1):
    assert close(x[:, i], 0)
    assert close(x[:, i] ** 2, SECOND[name][i])
  if name != 'moons':
    assert close(x[:, 0] * x[:, 1], 0.25 if name == 'checkerboard' else 0)


def test_ring8():
  """Labels are the nearest centre (neighbours are ten deviations apart) and deviations are .15 about it."""
  x, label = points('ring8')
  angle = np.arange(8) * np.pi / 4
  centres = 2 * np.stack([np.cos(angle), np.sin(angle)], -1)
  np.testing.assert_array_equal(np.linalg.norm(x[:, None] - centres, axis=-1).argmin(-1), label)
  assert close(((x - centres[label]) ** 2).sum(-1), 2 * 0.15**2)
  np.testing.assert_allclose(x.std(0), 1.422, atol=0.01)


def test_moons():
  """Each label lies on its circle, up to seven deviations, on its side of the centre."""
  x, label = points('moons')
  x = x + [0.5, 0.25]
  centre = np.where(label[:, None] == 0, [0, 0], [1, 0.5])
  assert np.abs(np.linalg.norm(x - centre, axis=-1) - 1).max() < 7 * 0.05
  assert ((x - centre)[:, 1] * np.where(label == 0, 1, -1)).min() > -7 * 0.05


def test_checkerboard():
  x, label = points('checkerboard')
  cell = np.floor(x + 2).astype(int)
  assert cell.min() == 0 and cell.max() == 3 and (cell.sum(-1) % 2 == 0).all()
  assert len({(k, *c) for k, c in zip(label.tolist(), cell.tolist(), strict=True)}) == 8


def test_swiss_roll():
  """The radius is (angle) / 5 with the angle uniform in its square root's measure: E r^2 and the winding agree."""
  x, _ = points('swiss_roll')
  assert close((x**2).sum(-1), (0.3 * np.pi) ** 2 * 13 / 3 + 2 * 0.05**2)
  radius = np.linalg.norm(x, axis=-1)
  off = np.angle(np.exp(1j * (np.arctan2(x[:, 1], x[:, 0]) - 5 * radius)))  # the roll: angle = 5 radius mod 2 pi
  assert np.abs(off).max() < 7 * 0.05 * (5 + 1 / radius.min())


def test_pinwheel():
  """Turning arm k back by 2 pi k / 5 lays it on arm 0."""
  x, label = points('pinwheel')
  back = (x[:, 0] + 1j * x[:, 1]) * np.exp(-2j * np.pi * label / 5)
  arms = [back.real[label == k] for k in range(5)]
  for arm in arms[1:]:
    error = np.sqrt(arm.var() / len(arm) + arms[0].var() / len(arms[0]))
    assert abs(arm.mean() - arms[0].mean()) < 6 * error


def test_seeds_and_splits():
  x, _ = points('ring8', n=64)
  np.testing.assert_array_equal(x, points('ring8', n=64)[0])
  for other in (points('ring8', n=64, seed=1), points('ring8', 'test', n=64)):
    assert (x != other[0]).all()
