"""Bonds and angles of the known molecules, about their mean, in no preferred direction."""

import numpy as np
import pytest

from diffjax.data import load

ATOMS = dict(water=('O', 2), ammonia=('N', 3), methane=('C', 4))
LENGTHS = dict(water=0.96, ammonia=1.01, methane=1.09)


@pytest.fixture(scope='module')
def whole():
  return load('molecules').arrays()


def close(values, mean, deviation=None):
  """The sample mean within six standard errors, and the deviation where one is given."""
  n = values.size
  assert abs(values.mean() - mean) < 6 * values.std() / np.sqrt(n)
  assert deviation is None or abs(values.std() - deviation) < 6 * deviation / np.sqrt(2 * n)


def of(whole, name):
  """Positions (n, atoms, 3) of one kind, its types and bonds from the heavy atom."""
  k, hydrogens = list(ATOMS).index(name), ATOMS[name][1]
  x = whole['x'][whole['cond'] == k].astype(float)
  places = x[:, : hydrogens + 1, :3]
  return x, places, places[:, 1:] - places[:, :1]


@pytest.mark.parametrize('name', ATOMS)
def test_bonds_and_types(whole, name):
  x, places, bonds = of(whole, name)
  heavy, hydrogens = ATOMS[name]
  types = np.zeros((5, 4))
  types[0, 'HCNO'.index(heavy)] = 1
  types[1 : hydrogens + 1, 0] = 1
  assert (x[:, :, 3:] == types).all() and (x[:, hydrogens + 1 :] == 0).all()
  np.testing.assert_array_equal(whole['mask'][whole['cond'] == list(ATOMS).index(name)], len(x) * [types.sum(1)])
  np.testing.assert_allclose(places.mean(1), 0, atol=1e-6)
  lengths = np.linalg.norm(bonds, axis=-1)
  close(lengths, LENGTHS[name], 0.02)
  apart = np.corrcoef(lengths.T)[np.triu_indices(hydrogens, 1)]
  assert (np.abs(apart) < 6 / np.sqrt(len(lengths))).all()


def test_angles(whole):
  for name, expected in dict(water=104.5, ammonia=107, methane=np.rad2deg(np.arccos(-1 / 3))).items():
    bonds = of(whole, name)[2]
    unit = bonds / np.linalg.norm(bonds, axis=-1, keepdims=True)
    i, j = np.triu_indices(unit.shape[1], 1)
    angles = np.rad2deg(np.arccos((unit[:, i] * unit[:, j]).sum(-1)))
    if name == 'water':
      close(angles, expected, 2)
    else:
      np.testing.assert_allclose(angles, expected, atol=1e-3)


@pytest.mark.parametrize('name', ATOMS)
def test_no_direction_is_preferred(whole, name):
  """Bonds are uniform on the sphere (E u = 0, E u u^T = I / 3, E u_z^4 = 1 / 5), and so is the normal of two."""
  bonds = of(whole, name)[2]
  u = bonds[:, 0] / np.linalg.norm(bonds[:, 0], axis=-1, keepdims=True)
  for i in range(3):
    close(u[:, i], 0)
    close(u[:, i] ** 4, 1 / 5)
    for j in range(3):
      close(u[:, i] * u[:, j], (i == j) / 3)
  # two bonds together: a whole rotation, not of one axis alone
  across = np.cross(bonds[:, 0], bonds[:, 1])
  close(across[:, 2] * across[:, 0], 0)
  close((across[:, 2] / np.linalg.norm(across, axis=-1)) ** 2, 1 / 3)


def test_valid(whole):
  """Data are; another length or type, or an atom too few, is not; a rotation and the order change nothing."""
  law, x = load('molecules', n=1).law, whole['x'][:300]
  assert law.valid(x).all()
  turn = np.linalg.qr(np.random.RandomState(0).standard_normal((3, 3)))[0]
  turned = np.concatenate([x[..., :3] @ turn, x[..., 3:] + 0.3], -1)[:, [3, 1, 4, 0, 2]]
  assert law.valid(turned).all()
  for change in (x * [1.2, 1.2, 1.2, 1, 1, 1, 1], x[..., [0, 1, 2, 4, 3, 5, 6]], x * (np.arange(5) != 1)[:, None]):
    assert not law.valid(change).any()


def test_stretched_molecules_and_their_radius():
  """A molecule is the unstretched one of the same draw, larger; the radius by hand, of its atoms alone."""
  options = dict(formulas=('water', 'methane'), n=200)
  plain, data = load('molecules', **options), load('molecules', stretch=0.5, source='gyration', **options)
  assert data.others == {'mask': (5,), 'source': (1,)} and data.law is None
  one, other = plain.arrays(), data.arrays()
  ratio = np.linalg.norm(other['x'][..., :3], axis=(1, 2)) / np.linalg.norm(one['x'][..., :3], axis=(1, 2))
  np.testing.assert_allclose(other['x'][..., :3], one['x'][..., :3] * ratio[:, None, None], atol=1e-5)
  close(np.log(ratio), 0, 0.5 / np.sqrt(3))
  for x, mask, radius in zip(other['x'][:5], other['mask'], other['source'], strict=False):
    there = x[mask > 0, :3].astype(float)
    assert abs(np.sqrt(np.square(there - there.mean(0)).sum(1).mean()) - radius[0]) < 1e-6
  for bad, field in ((dict(stretch=-1.0), 'stretch'), (dict(source='mass'), 'source')):
    with pytest.raises(ValueError, match=f'data.{field}: got .*allowed'):
      load('molecules', n=1, **bad)


def test_some_formulas():
  data = load('molecules', formulas=('ammonia',), n=50)
  assert (data.shape, data.classes, data.names, data.kind) == ((4, 7), 1, ('ammonia',), 'molecules')
  assert data.arrays()['mask'].all() and data.law.valid(data.arrays()['x']).all()
  assert not load('molecules', formulas=('water',), n=1).law.valid(data.arrays()['x']).any()
