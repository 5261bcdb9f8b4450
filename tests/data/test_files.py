"""Image folders and npz files come back as written, and bad ones are refused by name, value and what is allowed."""

import numpy as np
import pytest
from PIL import Image

from diffjax.data import load


@pytest.fixture
def pictures():
  return np.random.RandomState(0).randint(256, size=(6, 4, 4, 3)).astype(np.uint8)


def refused(words, *args, **kwargs):
  with pytest.raises(ValueError) as error:
    load(*args, **kwargs).arrays()
  assert all(str(word) in str(error.value) for word in words), str(error.value)


def save(path, **arrays):
  np.savez(path, **arrays)
  return str(path)


def test_npz_images(tmp_path, pictures):
  path = save(tmp_path / 'train.npz', x=pictures, y=np.array([0, 1, 2, 2, 1, 0]))
  data = load('npz', 'train', path=str(tmp_path / '{split}.npz'))
  assert (data.size, data.shape, data.classes) == (6, (4, 4, 3), 3)
  arrays = data.arrays()
  np.testing.assert_array_equal(np.rint((arrays['x'] + 1) * 127.5), pictures)
  np.testing.assert_array_equal(arrays['cond'], [0, 1, 2, 2, 1, 0])
  assert (arrays['x'].dtype, arrays['cond'].dtype) == (np.float32, np.int32)
  assert arrays['x'].min() >= -1 and arrays['x'].max() <= 1
  assert load('npz', path=path, classes=10).classes == 10


def test_npz_vectors(tmp_path):
  x = 100 * np.random.RandomState(0).randn(5, 3)
  data = load('npz', path=save(tmp_path / 'v.npz', x=x))
  assert (data.shape, data.classes) == ((3,), None)
  np.testing.assert_array_equal(data.arrays()['x'], x.astype(np.float32))
  assert 'cond' not in data.arrays()


def test_npz_latents(tmp_path):
  """Floats of any range, as they are or times a factor; without the word they are images out of range."""
  x, y = 5 * np.random.RandomState(0).randn(3, 4, 4, 4).astype(np.float32), np.array([1, 0, 1])
  path = save(tmp_path / 'z.npz', x=x.astype(np.float16), y=y)
  data = load('npz', path=path, latents=True)
  assert (data.shape, data.classes) == ((4, 4, 4), 2)
  np.testing.assert_array_equal(data.arrays()['x'], x.astype(np.float16))
  np.testing.assert_allclose(load('npz', path=path, latents=True, factor=0.18215).arrays()['x'], 0.18215 * x, rtol=1e-3)
  refused(['z.npz', '-1 to 1'], 'npz', path=path)
  refused(['factor is 0.5', '1 without latents'], 'npz', path=path, factor=0.5)
  broken = x.copy()
  broken[2, 0, 0, 1] = np.inf
  refused(['example 2', 'finite'], 'npz', path=save(tmp_path / 'b.npz', x=broken), latents=True)
  refused(['uint8', 'floating'], 'npz', path=save(tmp_path / 'u.npz', x=np.zeros((2, 4, 4, 4), np.uint8)), latents=True)
  refused(['(3, 4)', '(n, H, W, C)'], 'npz', path=save(tmp_path / 'v.npz', x=np.zeros((3, 4))), latents=True)


def test_npz_refused(tmp_path, pictures):
  x = np.zeros((6, 4, 4, 3), np.float32)
  file = tmp_path / 'bad.npz'

  def bad(words, classes=None, **arrays):
    options = {} if classes is None else dict(classes=classes)
    refused(['bad.npz', *words], 'npz', path=save(file, **arrays), **options)

  broken = x.copy()
  broken[4, 1, 2, 0] = np.nan
  bad(['example 4', 'nan', 'finite'], x=broken)
  broken[4, 1, 2, 0] = 7.5
  bad(['example 4', '7.5', '-1 to 1'], x=broken)
  bad(['nan', 'example 1'], x=np.array([[0.0, 1.0], [np.nan, 0.0]]))
  bad(['int64', 'uint8'], x=pictures.astype(np.int64))
  bad(['(6, 4, 4)', '(n, H, W, C)'], x=x[..., 0])
  bad(['(0, 2)'], x=np.zeros((0, 2)))
  bad(['x is missing'], y=np.zeros(3))
  bad(['example 2', '-1', '0 to'], x=x, y=np.array([0, 1, -1, 0, 0, 0]))
  bad(['example 1', '5', '0 to 3'], classes=4, x=x, y=np.array([0, 5, 1, 0, 0, 0]))
  bad(['float64', 'integers of shape (6,)'], x=x, y=np.zeros(6))
  bad(['(5,)', '(6,)'], x=x, y=np.zeros(5, int))
  bad(['y is missing'], classes=4, x=x)
  bad(['plain arrays'], x=np.array([[{}]], dtype=object))
  file.write_bytes(b'not a zip')
  refused(['bad.npz', 'not an npz'], 'npz', path=str(file))
  np.save(tmp_path / 'one.npy', x)
  refused(['one.npy', 'not an npz'], 'npz', path=str(tmp_path / 'one.npy'))
  refused(['none.npz', 'no such file'], 'npz', path=str(tmp_path / 'none.npz'))


def write(root, pictures, classes=('cat', 'dog', 'ant')):
  for i, picture in enumerate(pictures):
    place = root / classes[i % len(classes)]
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(place / f'{i}.png')


def test_folder(tmp_path, pictures):
  """Classes are sorted by name: ant 0, cat 1, dog 2; at its own size a picture comes back bit for bit."""
  write(tmp_path / 'train', pictures)
  (tmp_path / 'train' / 'cat' / 'notes.txt').write_text('not an image')
  data = load('folder', 'train', path=str(tmp_path / '{split}'), size=4)
  assert (data.size, data.shape, data.classes) == (6, (4, 4, 3), 3)
  arrays = data.arrays()
  np.testing.assert_array_equal(arrays['cond'], [0, 0, 1, 1, 2, 2])
  np.testing.assert_array_equal(np.rint((arrays['x'] + 1) * 127.5), pictures[[2, 5, 0, 3, 1, 4]])


def test_folder_crops_and_resizes(tmp_path):
  """The centre square of a wide picture: its halves stay halves, the margins vanish; grey is 1 channel."""
  wide = np.zeros((32, 64, 3), np.uint8)
  wide[:, 16:32], wide[:, :16], wide[:, 48:] = 255, 128, 128
  Image.fromarray(wide).save(tmp_path / 'a.png')
  data = load('folder', path=str(tmp_path), size=8, channels=1)
  assert (data.shape, data.classes) == ((8, 8, 1), None)
  x = data.arrays()['x'][0, ..., 0]
  np.testing.assert_allclose(x[:, [0, 1, 6, 7]], np.broadcast_to([1, 1, -1, -1], (8, 4)), atol=0.05)


def test_folder_refused(tmp_path, pictures):
  path = str(tmp_path / 'set')
  refused(['set', 'no such folder'], 'folder', path=path, size=4)
  (tmp_path / 'set').mkdir()
  refused(['set', 'no images', '.png'], 'folder', path=path, size=4)
  (tmp_path / 'set' / 'empty').mkdir()
  refused(['empty', 'without images'], 'folder', path=path, size=4)
  (tmp_path / 'set' / 'empty').rmdir()
  write(tmp_path / 'set', pictures)
  refused(['channels=2', '1 or 3'], 'folder', path=path, size=4, channels=2)
  refused(["needs the option 'size'"], 'folder', path=path)
  (tmp_path / 'set' / 'cat' / '9.png').write_bytes(b'broken')
  refused(['9.png', 'not a readable image'], 'folder', path=path, size=4)
  Image.fromarray(pictures[0]).save(tmp_path / 'set' / 'loose.png')
  refused(['loose.png', 'ant', 'one kind'], 'folder', path=path, size=4)


@pytest.mark.parametrize(
  'names',
  [
    [str(i) for i in range(12)],
    ['1', '2', '10', '010a'],
    ['b2c10', 'b10c1', 'b10c9', 'b10c10'],
    ['ant', 'cat', 'dog'],
    ['v1.2', 'v1.10', 'v2.1'],
  ],
)
def test_class_folders_in_natural_order(names, tmp_path, pictures):
  """Numbers inside names count as numbers; label k is the k-th folder, and says its name."""
  for i, name in enumerate(names):
    (tmp_path / name).mkdir()
    Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(tmp_path / name / 'a.png')
  data = load('folder', path=str(tmp_path), size=4)
  assert data.names == tuple(names) and data.classes == len(names)
  arrays = data.arrays()
  np.testing.assert_array_equal(arrays['cond'], np.arange(len(names)))
  np.testing.assert_array_equal(np.rint((arrays['x'][:, 0, 0, 0] + 1) * 127.5), 10 * np.arange(len(names)))


def test_stated_names_give_the_order(tmp_path, pictures):
  write(tmp_path, pictures)
  data = load('folder', path=str(tmp_path), size=4, names=('dog', 'ant', 'cat'))
  assert data.names == ('dog', 'ant', 'cat')
  arrays = data.arrays()
  np.testing.assert_array_equal(arrays['cond'], [0, 0, 1, 1, 2, 2])
  np.testing.assert_array_equal(np.rint((arrays['x'] + 1) * 127.5), pictures[[1, 4, 2, 5, 0, 3]])


def test_other_names_are_refused(tmp_path, pictures):
  """By both names, whether their number is equal or not; of sets without names only the number can be wrong."""
  write(tmp_path / 'set', pictures)
  folder = dict(path=str(tmp_path / 'set'), size=4)
  refused(['set', "'ant'", "'bird'", 'data.names'], 'folder', names=('bird', 'cat', 'dog'), **folder)
  refused(['set', "'ant'", "'dog'", 'data.names'], 'folder', names=('cat', 'dog'), **folder)
  refused(['set', "'bird'", 'data.names'], 'folder', names=('ant', 'bird', 'cat', 'dog'), **folder)
  for bad in (('ant', 'ant', 'dog'), 'ant,cat,dog', ('ant', 'cat', 3)):
    refused([f'data.names: got {bad!r}', 'different names'], 'folder', names=bad, **folder)
  Image.fromarray(pictures[0]).save(tmp_path / 'loose.png')
  (tmp_path / 'loose').mkdir()
  Image.fromarray(pictures[0]).save(tmp_path / 'loose' / 'a.png')
  refused(['none', "'ant'"], 'folder', path=str(tmp_path / 'loose'), size=4, names=('ant', 'cat'))
  path = save(tmp_path / 'a.npz', x=pictures, y=np.arange(6) % 3)
  assert load('npz', path=path).names is None
  assert load('npz', path=path, names=('ant', 'cat', 'dog')).names == ('ant', 'cat', 'dog')
  refused(['data.names: got 2', '3, one a class'], 'npz', path=path, names=('ant', 'cat'))
  refused(['data.names: got 2', '0, one a class'], 'swiss_roll', n=3, names=('ant', 'cat'))


@pytest.mark.parametrize('keys', [('x', 'y'), ('samples', 'labels'), ('arr_0', 'arr_1')])
def test_every_npz_that_is_written_is_read(keys, tmp_path, pictures):
  """Pairs of names: floats as they are, uint8 scaled, labels with them or none; `x` goes before the others."""
  labels = np.array([0, 1, 2, 2, 1, 0], np.int32)
  floats = (pictures / 127.5 - 1).astype(np.float32)
  for x in (pictures, floats):
    path = save(tmp_path / 'a.npz', **dict(zip(keys, (x, labels), strict=True)))
    arrays = load('npz', path=path, classes=3).arrays()
    np.testing.assert_allclose(arrays['x'], floats, atol=2e-7)
    np.testing.assert_array_equal(arrays['cond'], labels)
  alone = load('npz', path=save(tmp_path / 'b.npz', **{keys[0]: floats}))
  assert alone.classes is None and alone.shape == (4, 4, 3)
  refused(
    ['c.npz', f'array {keys[1]} is missing'], 'npz', path=save(tmp_path / 'c.npz', **{keys[0]: floats}), classes=3
  )
  both = load('npz', path=save(tmp_path / 'd.npz', x=-floats, **{keys[0] if keys[0] != 'x' else 'arr_0': floats}))
  np.testing.assert_array_equal(both.arrays()['x'], -floats)
