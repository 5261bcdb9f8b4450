"""Files are there as a whole or not at all, and a damaged one is one kind of error."""

import numpy as np
import pytest

from diffjax.files import DamagedFile, read_npz, replacing, write, write_npz

ARRAYS = dict(x=np.arange(6.0).reshape(2, 3), name='it', half=np.float16(1.5))


def test_arrays_come_back(tmp_path):
  path = tmp_path / 'new' / 'it.npz'
  for compressed in (False, True):
    write_npz(path, ARRAYS, compressed)  # the second replaces the first
    found = read_npz(path)
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
      np.testing.assert_array_equal(found[name], value, strict=True) if name != 'name' else None
    assert str(found['name']) == 'it'
  assert read_npz(path, ('half', 'other')).keys() == {'half'}
  assert [p.name for p in path.parent.iterdir()] == ['it.npz']


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
  path = tmp_path / 'it'
  write(path, b'before')
  with pytest.raises(ZeroDivisionError), replacing(path) as beside:
    beside.write_bytes(b'half of')
    raise ZeroDivisionError
  assert path.read_bytes() == b'before'


def test_damage_is_one_error(tmp_path):
  path = tmp_path / 'it.npz'
  write_npz(path, ARRAYS)
  whole = path.read_bytes()
  plain = tmp_path / 'plain.npy'
  np.save(plain, np.zeros(3))
  flipped = bytearray(whole)
  flipped[len(whole) // 8] ^= 255
  for data in (b'', b'hello', whole[: len(whole) // 2], bytes(flipped), plain.read_bytes()):
    path.write_bytes(data)
    with pytest.raises(DamagedFile):
      read_npz(path)
  np.savez(path, np.array([{}], object))
  with pytest.raises(DamagedFile, match='allow_pickle'):
    read_npz(path)
