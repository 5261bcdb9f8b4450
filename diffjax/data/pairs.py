"""Pairs made of digits: two modalities in one x, or an image x and in 'source' the one that it is to be made from.

A set whose x is a dict has a time for each modality (`diffjax.nets.unidiffuser`). The others are images x and 'source'
of one shape and the digit's label in 'cond'. Whoever takes source and x from different batches has them unpaired.
"""

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.digits import digits
from diffjax.data.options import among, check_made, number
from diffjax.data.seeds import of_split

__all__ = [
  'coarse', 'digits_coarse', 'digits_edges', 'digits_labels', 'digits_noisy', 'digits_projection', 'digits_styles',
]  # fmt: skip

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


def digits_edges(split: str, data_dir: str | None = None) -> DataSet:
  """A digit x and its edges, `edges` of it: a function of x, (8, 8, 1) in [-1, 1]."""
  whole = digits(split, data_dir).arrays()
  return _translated('digits_edges', whole['x'], edges(whole['x']), whole['cond'])


def digits_noisy(split: str, data_dir: str | None = None, *, noise: float = 0.5, seed: int = 0) -> DataSet:
  """A digit x and the same with noise: source | x is N(x, noise^2 I), one draw a digit, by (seed, split)."""
  check_made(split, 1, seed)
  number('data.noise', noise, 0)
  whole = digits(split, data_dir).arrays()
  drawn = of_split(seed, 'digits_noisy', split).standard_normal(whole['x'].shape)
  return _translated('digits_noisy', whole['x'], whole['x'] + noise * drawn, whole['cond'])


def digits_styles(split: str, data_dir: str | None = None) -> DataSet:
  """Two styles of a digit: the source as it was written, and x = `bold` of it, dark on light with broad strokes."""
  whole = digits(split, data_dir).arrays()
  return _translated('digits_styles', bold(whole['x']), whole['x'], whole['cond'])


def digits_coarse(split: str, data_dir: str | None = None, *, factor: int = 2) -> DataSet:
  """A digit x and itself at a `factor` (2, 4 or 8) lower resolution, `coarse` of it, in the same shape."""
  among('data.factor', factor, (2, 4, 8))
  whole = digits(split, data_dir).arrays()
  return _translated('digits_coarse', whole['x'], coarse(whole['x'], factor), whole['cond'])


def edges(images: np.ndarray) -> np.ndarray:
  """Images (n, H, W, C) in [-1, 1] to sqrt(2) |gradient| - 1, in [-1, 1], by central differences; edges repeated."""
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  down, right = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
  return np.clip(np.hypot(down, right) / np.sqrt(2) - 1, -1, 1)


def bold(images: np.ndarray) -> np.ndarray:
  """Images (n, H, W, C), each pixel the negative of the greatest of itself and its four neighbours."""
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  cross = padded[:, 1:-1, 1:-1], padded[:, 2:, 1:-1], padded[:, :-2, 1:-1], padded[:, 1:-1, 2:], padded[:, 1:-1, :-2]
  return -np.max(cross, axis=0)


def coarse(images: np.ndarray, factor: int) -> np.ndarray:
  """Images (n, H, W, C), each pixel the mean of its block of factor x factor."""
  n, h, w, c = images.shape
  blocks = images.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))
  return blocks.repeat(factor, 1).repeat(factor, 2)


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


def _translated(name: str, x: np.ndarray, source: np.ndarray, labels: np.ndarray) -> DataSet:
  arrays = Arrays(np.asarray(x, np.float32), labels, {'source': np.asarray(source, np.float32)})
  return DataSet(name, arrays, x.shape[1:], 10, others={'source': source.shape[1:]})
