"""Two modalities of one digit: sets whose x is a dict, for networks with a time each (`diffjax.nets.unidiffuser`)."""

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.digits import digits

__all__ = ['digits_labels', 'digits_projection']

SIZE = 16


def digits_labels(split: str, data_dir: str | None = None) -> DataSet:
  """Pairs of a digit and its label.

  {'image': (8, 8, 1) in [-1, 1], 'label': (10,)}, the label as in `one_hot`.
  """
  whole = digits(split, data_dir).arrays()
  return _pair('digits_labels', whole['x'], label=one_hot(whole['cond']))


def digits_projection(split: str, data_dir: str | None = None) -> DataSet:
  """Pairs of a digit and a projection of it.

  {'image': (8, 8, 1) in [-1, 1], 'projection': (16,)}, the image in the directions of `projected`.
  """
  image, seen = (digits(part, data_dir).arrays()['x'] for part in (split, 'train'))
  return _pair('digits_projection', image, projection=projected(image, seen))


def one_hot(labels: np.ndarray) -> np.ndarray:
  """Labels (n,) as (n, 10): one-hot less 1/10, over 3/10; with equal classes of mean 0 and variance 1 each."""
  return (np.eye(10)[labels] - 0.1) / 0.3


def projected(images: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """Images (n, 8, 8, 1) in 16 normal directions, always the same, of mean 0 and variance 1 each over those seen."""
  matrix = np.random.RandomState(0).standard_normal((64, SIZE))
  new, known = (np.reshape(x, (-1, 64)) @ matrix for x in (images, seen))
  return (new - known.mean(0)) / known.std(0)


def _pair(name: str, image: np.ndarray, **other: np.ndarray) -> DataSet:
  x = {'image': image, **{k: np.asarray(v, np.float32) for k, v in other.items()}}
  return DataSet(name, Arrays(x), {k: v.shape[1:] for k, v in x.items()})
