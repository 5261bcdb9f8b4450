"""Sets by name: any prepared tfds set, and one clear line for every name, split or record that will not do."""

import importlib
import inspect
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffjax.data import DataSet, batches, load
from diffjax.data.dataset import KINDS
from diffjax.data.records import prepare
from diffjax.data.sources import PAGES

PICTURES = np.random.RandomState(0).randint(256, size=(5, 6, 6, 3)).astype(np.uint8)


class Made(tfds.core.GeneratorBasedBuilder):
  """Examples given as a list, features as a dict: what a test needs."""

  VERSION = tfds.core.Version('1.0.0')
  SKIP_REGISTERING = True
  code_path = None

  def _info(self):
    pair = ('image', 'label') if 'label' in self.FEATURES else None
    features = tfds.features.FeaturesDict(self.FEATURES)
    return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=pair, disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {'train': enumerate(self.EXAMPLES)}

  def _generate_examples(self):
    raise NotImplementedError


class Pictures(Made):
  FEATURES = {'image': tfds.features.Image(shape=(None, None, 3)), 'label': tfds.features.ClassLabel(num_classes=7)}
  EXAMPLES = [{'image': Image.fromarray(x), 'label': i} for i, x in enumerate(PICTURES)]


class Ragged(Made):
  FEATURES = {'image': tfds.features.Image(shape=(None, None, 3))}
  EXAMPLES = [{'image': Image.fromarray(x)} for x in (PICTURES[0], PICTURES[1][:4])]


class Hidden(Made):
  FEATURES = Pictures.FEATURES
  EXAMPLES = [{'image': Image.fromarray(x), 'label': label} for x, label in zip(PICTURES, (0, 6, -1), strict=False)]


class Floats(Made):
  FEATURES = {'image': tfds.features.Tensor(shape=(2, 2, 1), dtype=np.float32)}
  EXAMPLES = [{'image': np.full((2, 2, 1), v, np.float32)} for v in (0.5, np.nan)]


DEEP = np.linspace(0, 65535, 32).round().reshape(2, 4, 4, 1).astype(np.uint16)


class Deep(Made):
  FEATURES = {
    'image': tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint16),
    'label': tfds.features.ClassLabel(names=['dog', 'cat']),
  }
  EXAMPLES = [{'image': x, 'label': i} for i, x in enumerate(DEEP)]


def refused(words, *args, **kwargs):
  with pytest.raises(ValueError) as error:
    load(*args, **kwargs).arrays()
  assert all(str(word) in str(error.value) for word in words), str(error.value)
  assert '\n' not in str(error.value)


def test_any_prepared_set(tmp_path):
  """PNG records decoded without TensorFlow, from the files alone: their builder is not registered."""
  prepare(Pictures, str(tmp_path))
  data = load('pictures', 'train', str(tmp_path))
  assert (data.size, data.shape, data.classes) == (5, (6, 6, 3), 7)
  arrays = data.arrays()
  np.testing.assert_array_equal(np.rint((arrays['x'] + 1) * 127.5), PICTURES)
  np.testing.assert_array_equal(arrays['cond'], np.arange(5))
  assert load('pictures:1.0.0', 'train[:2]', str(tmp_path), size=3).arrays()['x'].shape == (2, 3, 3, 3)
  assert 'tensorflow' not in sys.modules


def test_bad_records(tmp_path):
  for builder in (Ragged, Hidden, Floats):
    prepare(builder, str(tmp_path))
  refused(['ragged/train, example 1', '(4, 6, 3)', '(6, 6, 3)'], 'ragged', data_dir=str(tmp_path))
  refused(['hidden/train, example 2', 'label', '-1', '0 to 6'], 'hidden', data_dir=str(tmp_path))
  refused(['floats/train, example 1', 'nan', 'finite'], 'floats', data_dir=str(tmp_path))
  assert load('ragged', data_dir=str(tmp_path), size=4).arrays()['x'].shape == (2, 4, 4, 3)


def test_sixteen_bits_and_names(tmp_path):
  """2 v / 65535 - 1, resized or not; the builder's names of the labels, which others may not replace or permute."""
  prepare(Deep, str(tmp_path))
  data = load('deep', data_dir=str(tmp_path))
  np.testing.assert_allclose(data.arrays()['x'], DEEP / 32767.5 - 1, atol=2e-7)
  halves = load('deep', data_dir=str(tmp_path), size=2).arrays()['x']
  np.testing.assert_allclose(halves.mean((1, 2, 3)), (DEEP / 32767.5 - 1).mean((1, 2, 3)), atol=0.02)
  assert data.names == ('dog', 'cat') == load('deep', data_dir=str(tmp_path), names=('dog', 'cat')).names
  for names in (('cat', 'dog'), ('dog', 'bird')):
    refused(['deep/train', "'cat'", repr(names[1])], 'deep', data_dir=str(tmp_path), names=names)
  prepare(Pictures, str(tmp_path))
  assert load('pictures', data_dir=str(tmp_path)).names is None  # called by their numbers


@pytest.mark.parametrize(
  'name, near',
  [('digts', 'digits'), ('cifr10', 'cifar10'), ('ring9', 'ring8'), ('kaggle:x', ''), ('', ''), ('a b', '')],
)
def test_unknown_names(tmp_path, name, near):
  words = [
    repr(name),
    f"did you mean '{near}",
    'digits, digits_labels, digits_projection, digits_edges',
    'molecules, biased_table, folder, npz',
    tmp_path,
  ]
  refused(words, name, data_dir=str(tmp_path))


def test_says_how_to_prepare(tmp_path):
  command = f'tfds build imagenet_resized/64x64 --data_dir={tmp_path} --file_format=array_record'
  refused(['imagenet_resized/64x64', 'not prepared', command], 'imagenet_resized/64x64', data_dir=str(tmp_path))
  assert not list(tmp_path.iterdir())  # nothing is downloaded or written unasked


def test_data_dir_from_the_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  refused([f'--data_dir={tmp_path}'], 'cifar10')


def test_refuses_splits_versions_options(home):
  refused(["split 'valid'", 'digits', 'train, test'], 'digits', 'valid', home)
  refused(['cifar10:9.9.9', 'only: 3'], 'cifar10:9.9.9', data_dir=home)
  refused(['imagenet_resized/65x65', 'imagenet_resized/64x64'], 'imagenet_resized/65x65', data_dir=home)
  refused(["option 'path'", 'ring8', 'n, seed'], 'ring8', path='x')
  refused(["needs the option 'shape'"], 'synthetic')
  refused(['n is 0', 'at least 1'], 'moons', n=0)


def test_refuses_an_unwritable_directory(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  refused(['data_dir', 'file', '$TFDS_DATA_DIR'], 'digits', data_dir=str(tmp_path / 'file'))


def test_synthetic():
  data = load('synthetic', shape=(4, 4, 3), n=10, classes=2)
  assert (data.size, data.shape, data.classes, data.nbytes) == (10, (4, 4, 3), 2, 4 * 480)
  assert np.abs(data.arrays()['x']).max() <= 1 and set(data.arrays()['cond']) <= {0, 1}


def test_a_source_of_ones_own():
  """Anything with len and [i] is a source."""
  data = DataSet('mine', [{'x': np.full((2,), i)} for i in range(4)], (2,))
  np.testing.assert_array_equal(data.take([3, 1])['x'], [[3, 3], [1, 1]])
  assert data.arrays()['x'].dtype == np.float32


@pytest.mark.parametrize('page', PAGES)
def test_pages_of_made_sets(page, home):
  """Each name is its page's; a set says what its batches hold, in which shapes and types, and of what kind it is."""
  module = importlib.import_module(f'diffjax.data.{page}')
  assert set(PAGES[page]) <= set(module.__all__)
  for name in PAGES[page]:
    few = dict(n=5) if 'n' in inspect.signature(getattr(module, name)).parameters else {}
    for split in ('train', 'test'):
      data = load(name, split, home, **few)
      batch = next(batches(data, 3, 0))
      assert tuple(sorted(batch)) == tuple(sorted(data.keys)) and data.kind in KINDS
      for key, shape in data.others.items():
        assert batch[key].shape == (3, *shape) and batch[key].dtype == np.float32
      if isinstance(data.shape, tuple):
        assert batch['x'].shape == (3, *data.shape) and batch['x'].dtype == data.dtype
      assert data.classes is None or batch['cond'].max() < data.classes
    refused(['split', "'valid'", 'train'], name, 'valid', home, **few)


@pytest.mark.parametrize(
  'name, options, words',
  [
    ('digits_noisy', dict(noise=-1), ['data.noise', '-1', 'at least 0']),
    ('digits_coarse', dict(factor=3), ['data.factor', '3', '2, 4, 8']),
    ('photographs', dict(size=321), ['data.size', '321', '1 to 320']),
    ('photographs', dict(source='edges'), ['data.source', "'edges'", "'grey', 'coarse'"]),
    ('photographs', dict(source='coarse', factor=3), ['data.factor', '3', 'divisor', '16']),
    ('moving_digits', dict(size=8), ['data.size', '8', 'at least 9']),
    ('moving_digits', dict(edge='stop'), ['data.edge', "'stop'", "'bounce', 'wrap'"]),
    ('moving_digits', dict(speed=0), ['data.speed', '0', 'at least 1']),
    ('chains', dict(rows=((1.0, 0.0),)), ['data.rows', '[2]', '3 rows of 3']),
    ('chains', dict(start=(0.5, 0.5, 0.5)), ['data.start', 'no probabilities', 'sum 1']),
    ('chains', dict(length='4'), ['data.length', "'4'", 'whole numbers']),
    ('series', dict(noise='low'), ['data.noise', "'low'", 'numbers']),
    ('chains', dict(length=1.5), ['data.length', '1.5', 'whole numbers']),
    ('grammar', dict(n=0), ['data.n', '0', 'at least 1']),
    ('grammar', dict(seed=-1), ['data.seed', '-1']),
    ('series', dict(rho=1.0), ['data.rho', '1', 'below 1']),
    ('series', dict(periods=(3.0,)), ['data.periods', '(3.0,)', 'as many']),
    ('series', dict(phase='none'), ['data.phase', "'none'", "'random', 'fixed'"]),
    ('spectra', dict(frames=1), ['data.frames', '1', 'at least 2']),
    ('molecules', dict(formulas=('water', 'salt')), ['data.formulas', 'salt', 'water, ammonia, methane']),
  ],
)
def test_made_sets_refuse(home, name, options, words):
  refused(words, name, data_dir=home, **options)


def test_kinds(tmp_path):
  """What a set is, where it does not say: by the shape of x, and latents where the file holds latents."""
  np.savez(tmp_path / 'x.npz', x=np.zeros((3, 4, 4, 2), np.float32))
  for latents, kind in ((False, 'images'), (True, 'latents')):
    assert load('npz', path=str(tmp_path / 'x.npz'), latents=latents).kind == kind
  assert load('ring8', n=5).kind == 'points'
  with pytest.raises(ValueError, match="kind is 'pictures', allowed: images"):
    DataSet('mine', [], (2,), kind='pictures')
