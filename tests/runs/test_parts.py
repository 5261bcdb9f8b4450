"""The files of a large draw: whole or not there, taken up where they were left, and read by who knows nothing of us."""

import ast
import json
import struct
import zipfile

import numpy as np
import pytest

from diffjax.runs.parts import Parts, pixels

SEEDS = np.r_[0:700, 1000:1500]  # three parts of 400
MADE = dict(run=dict(net=dict(width=32)), seed=0, guidance=dict(scale=1.0))


def image(k):
  """An image (2, 3, 1) that tells its k."""
  return (np.arange(6).reshape(2, 3, 1) * 37 + k) % 256 / 127.5 - 1


def draw(asked, rows=64, until=None):
  """A stand-in for the network: samples at these places, some at a time, that notes what it was asked for."""

  def some(places):
    for first in range(0, len(places), rows):
      if until is not None and len(asked) >= until:
        raise KeyboardInterrupt
      part = places[first : first + rows]
      asked.extend(part)
      yield np.stack([image(k) for k in SEEDS[part]]).astype(np.float32)

  return some


def begun(out, made=MADE, seeds=SEEDS):
  return Parts(str(out), seeds, seeds % 10, made, images=True)


def read(path):
  """The arrays of an .npz by the format's description alone: a zip of .npy, each a magic string, a header, bytes."""
  arrays = {}
  with zipfile.ZipFile(path) as archive:
    for name in archive.namelist():
      raw = archive.read(name)
      assert raw[:8] == b'\x93NUMPY\x01\x00'
      (length,) = struct.unpack('<H', raw[8:10])
      header = ast.literal_eval(raw[10 : 10 + length].decode())
      assert not header['fortran_order']
      arrays[name.removesuffix('.npy')] = np.frombuffer(raw[10 + length :], header['descr']).reshape(header['shape'])
  return arrays


def test_pixels_are_rounded_to_the_nearest():
  x = np.linspace(-1.2, 1.2, 4001)
  away = np.abs(pixels(x) - 127.5 * (np.clip(x, -1, 1) + 1))
  assert pixels(x).dtype == np.uint8 and away.max() <= 0.5 + 1e-9
  assert pixels(np.array([-2, -1, 0, 1, 2])).tolist() == [0, 0, 128, 255, 255]
  assert pixels(np.zeros((0, 2, 2, 1))).shape == (0, 2, 2, 1)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_pixels(value):
  x = np.zeros((4, 2, 2, 1))
  x[[1, 3], 0, 1] = value
  with pytest.raises(
    FloatingPointError, match='images: got 2 of 4 images with NaN or infinity, the first is 1; allowed'
  ):
    pixels(x)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_part_that_is_not_finite_is_not_written(value, tmp_path):
  """Those before it are; the samples are named by their seeds, and the same draw goes on once they are whole."""
  parts = begun(tmp_path / 'out')

  def spoilt(places):
    for some, where in zip(draw([])(places), np.split(places, range(64, len(places), 64)), strict=True):
      some[np.isin(SEEDS[where], [1010, 1013])] = value
      yield some

  with pytest.raises(FloatingPointError, match=r'samples 1004 to 1067: got 2 of 64 samples .* the first is 1010;'):
    parts.fill(spoilt)
  assert {f.name for f in (tmp_path / 'out').glob('part-*')} == {'part-000000-000399.npz'}
  parts.fill(draw([]))
  assert not len(parts.missing())


def test_layout_of_the_evaluation_suites(tmp_path):
  parts = begun(tmp_path / 'out')
  parts.fill(draw([]))
  parts.join()
  arrays = read(tmp_path / 'out.npz')
  assert set(arrays) == {'arr_0', 'arr_1'}
  assert arrays['arr_0'].dtype == np.uint8 and arrays['arr_0'].shape == (1200, 2, 3, 1)
  np.testing.assert_array_equal(
    arrays['arr_0'], (np.arange(6).reshape(2, 3, 1) * 37 + SEEDS[:, None, None, None]) % 256
  )
  np.testing.assert_array_equal(arrays['arr_1'], SEEDS % 10)
  names = sorted(file.name for file in (tmp_path / 'out').iterdir())
  assert names == ['manifest.json', 'part-000000-000399.npz', 'part-000400-001099.npz', 'part-001100-001499.npz']
  with np.load(tmp_path / 'out.npz') as file:
    np.testing.assert_array_equal(file['arr_0'], arrays['arr_0'])


def test_points_stay_what_they_are(tmp_path):
  points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32) * 3
  parts = Parts(str(tmp_path / 'out'), np.arange(5), None, MADE, images=False)
  parts.fill(lambda places: iter([points[places]]))
  parts.join()
  arrays = read(tmp_path / 'out.npz')
  assert set(arrays) == {'samples'}
  np.testing.assert_array_equal(arrays['samples'], points)


def test_goes_on_where_it_was_left(tmp_path):
  asked = []
  with pytest.raises(KeyboardInterrupt):
    begun(tmp_path / 'out').fill(draw(asked, until=500))
  assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['manifest.json', 'part-000000-000399.npz']
  again = []
  parts = begun(tmp_path / 'out')
  parts.fill(draw(again, rows=100))
  assert again == list(range(400, 1200))
  parts.fill(draw(None))  # nothing is left to ask for
  parts.join()
  np.testing.assert_array_equal(read(tmp_path / 'out.npz')['arr_0'], pixels(np.stack([image(k) for k in SEEDS])))


def test_another_draw_is_refused_and_nothing_changed(tmp_path):
  begun(tmp_path / 'out').fill(draw([]))
  before = {file.name: file.read_bytes() for file in (tmp_path / 'out').iterdir()}
  for change, words in (
    (dict(guidance=dict(scale=3.0)), 'guidance.scale is 1.0 there and 3.0 here'),
    (dict(run=dict(net=dict(width=64))), 'run.net.width is 32 there and 64 here'),
    (dict(seed=1), 'seed is 0 there and 1 here'),
  ):
    with pytest.raises(ValueError, match=f'out: .* another draw: {words}; allowed'):
      begun(tmp_path / 'out', MADE | change)
  assert {file.name: file.read_bytes() for file in (tmp_path / 'out').iterdir()} == before


def test_what_is_not_ours_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.tex').write_text('')
  (tmp_path / 'taken.npz').write_text('')
  for name in ('file', 'full', 'taken'):
    with pytest.raises(ValueError, match='no manifest; allowed: a path where nothing is'):
      begun(tmp_path / name)
  assert not (tmp_path / 'taken').exists() and len(list((tmp_path / 'full').iterdir())) == 1
  (tmp_path / 'full' / 'manifest.json').write_text(json.dumps(dict(rows=3)))
  with pytest.raises(ValueError, match='manifest.json is damaged'):
    begun(tmp_path / 'full')


def test_a_damaged_part_is_named(tmp_path):
  parts = begun(tmp_path / 'out')
  parts.fill(draw([]))
  path = tmp_path / 'out' / 'part-000400-001099.npz'
  path.write_bytes(path.read_bytes()[:900])
  with pytest.raises(ValueError, match='part-000400-001099.npz cannot be read .*; remove it and start again'):
    parts.join()
  assert not (tmp_path / 'out.npz').exists()
