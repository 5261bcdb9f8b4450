"""scikit-learn's 1797 digits as a TFDS builder: the embedded default, on the same path as ImageNet."""

import numpy as np

from diffjax.data.dataset import DataSet
from diffjax.data.records import prepare, read, tfds
from diffjax.metrics.digits import split

__all__ = ['Digits', 'digits']

LEVELS = 16


class Digits(tfds.core.GeneratorBasedBuilder):
  """8 x 8 digits, raw values 0..16, in the order and the splits of `diffjax.metrics.digits.split`."""

  VERSION = tfds.core.Version('1.0.0')
  # Nothing is downloaded, so there are no checksums to look for beside the code; tfds would look for them with
  # importlib_resources, which it does not install.
  code_path = None

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Optical recognition of handwritten digits, as shipped with scikit-learn.',
      homepage='https://archive.ics.uci.edu/dataset/80',
      # A Tensor, not an Image: writing a PNG feature would need TensorFlow.
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=('image', 'label'),
      # tfds shuffles by hash otherwise, and row i would not be entry i of the permutation.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    train, test = split()
    return {'train': self._generate_examples(train), 'test': self._generate_examples(test)}

  def _generate_examples(self, order):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.uint8).reshape(-1, 8, 8, 1)
    for key, i in enumerate(order):
      yield key, {'image': images[i], 'label': int(labels[i])}


def digits(split: str, data_dir: str | None = None) -> DataSet:
  """The digits in [-1, 1], shape (8, 8, 1), ten classes; prepared under `data_dir` on first use, without a word."""
  prepare(Digits, data_dir)
  return read('digits', split, data_dir, levels=LEVELS)
