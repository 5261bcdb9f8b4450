"""Files of statistics: what comes back, and every way in which one is refused."""

import numpy as np
import pytest

from diffjax import schedules, statistics

PROCESS = schedules.cosine()
VALUES = {
  'energies': statistics.isotropic(PROCESS, 0.5).replace(low=-1.0, high=1.0, scale=3.0),
  'linear': statistics.linear_form(PROCESS).replace(**{k: np.random.default_rng(0).random((2, 4, 3)) for k in 'lsb'}),
  'data': statistics.spread([np.random.default_rng(0).random((20, 3, 2, 1))]),
  'gaussian': statistics.gaussian(np.random.default_rng(0).random((20, 3, 2, 1))),
}


@pytest.mark.parametrize('kind', VALUES)
def test_what_was_saved_comes_back_bit_for_bit(kind, tmp_path):
  path, value = tmp_path / 'run' / 'statistics' / f'{kind}.npz', VALUES[kind]
  statistics.save(str(path), value)
  statistics.save(str(path), value)  # replaces
  found = statistics.load(str(path), type(value))
  for name in value.children():
    array = getattr(value, name)
    np.testing.assert_array_equal(getattr(found, name), array)
  assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('kind', VALUES)
def test_a_damaged_file_is_one_clear_error(kind, tmp_path):
  path, value = tmp_path / 'it.npz', VALUES[kind]
  statistics.save(str(path), value)
  good = path.read_bytes()
  places = good.index(b'NUMPY') + 130  # inside the first array
  flipped = good[:places] + bytes([good[places] ^ 1]) + good[places + 1 :]
  for bad in (b'', b'no archive', good[:100], good[: len(good) // 2], good[:-30], flipped):
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=r'statistics: got .*it\.npz, which is damaged'):
      statistics.load(str(path), type(value))


def test_other_kinds_versions_and_shapes_are_refused(tmp_path):
  path = str(tmp_path / 'it.npz')
  with pytest.raises(ValueError, match='not there; allowed: a file that diffjax statistics wrote'):
    statistics.load(path, statistics.NoiseEnergy)
  statistics.save(path, VALUES['energies'])
  with pytest.raises(ValueError, match="holds 'energies'; allowed: 'linear'"):
    statistics.load(path, statistics.ModelStatistics)
  with np.load(path) as file:
    arrays = dict(file)
  for change, words in (
    ({'version': 2}, 'of version 2; allowed: version 1'),
    ({'value': arrays['value'][:1]}, 'do not fit'),
    ({'lam': arrays['lam'][::-1]}, 'do not fit'),
    ({'value': arrays['value'] * np.nan}, 'do not fit'),
    ({'more': np.zeros(1)}, 'do not fit'),
  ):
    np.savez(path, **{**arrays, **change})
    with pytest.raises(ValueError, match=words):
      statistics.load(path, statistics.NoiseEnergy)
  np.savez(path, x=np.zeros(3))
  with pytest.raises(ValueError, match='damaged'):
    statistics.load(path, statistics.NoiseEnergy)
