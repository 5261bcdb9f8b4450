"""Colour patches of scikit-learn's two photographs, china and flower: left halves to train, right halves to judge."""

import dataclasses
import functools

import numpy as np

from diffjax.data.dataset import DataSet, scaled
from diffjax.data.options import among, check_made, whole
from diffjax.data.pairs import coarse
from diffjax.data.seeds import of_split
from diffjax.errors import InputError

__all__ = ['photographs']

NAMES = ('china', 'flower')
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def photographs(
  split: str,
  *,
  size: int = 16,
  n: int = 2**12,
  seed: int = 0,
  which: str | None = None,
  source: str | None = None,
  factor: int = 2,
) -> DataSet:
  """Patches (size, size, 3) in [-1, 1], their photograph in the label: 0 china, 1 flower, each with probability 1/2.

  Of a photograph 427 x 640 the columns 0..319 are train and 320..639 test. A corner is uniform over the places where
  the patch lies inside its half: no patch crosses the middle, no pixel is in both splits.

  Args:
    split: train or test.
    size: of a patch, up to 320.
    n: patches, independent by (seed, split); they may overlap.
    seed: of the corners.
    which: china or flower, for patches of it alone, whose labels stay as they are.
    source: 'grey' pairs x with .299 R + .587 G + .114 B of it, (size, size, 1); 'coarse' with the means of its blocks
      of factor x factor, (size, size, 3).
    factor: of 'coarse'; it divides `size`.
  """
  check_made(split, n, seed)
  among('data.source', source, (None, 'grey', 'coarse'))
  halves = _halves()[split]
  whole('data.size', size, 1, min(halves.shape[1:3]))
  if source == 'coarse' and size % whole('data.factor', factor, 1):
    raise InputError(f'data.factor: got {factor}; allowed: a divisor of data.size, {size}')
  rng = of_split(seed, 'photographs', split)
  label = rng.randint(2, size=n)
  if which is not None:
    label[:] = NAMES.index(among('data.which', which, NAMES))
  corners = np.stack([rng.randint(side - size + 1, size=n) for side in halves.shape[1:3]], -1)
  patches = Patches(halves, label, corners, size, source, factor)
  others = {} if source is None else {'source': (size, size, 1 if source == 'grey' else 3)}
  return DataSet('photographs', patches, (size, size, 3), 2, NAMES, others=others)


@dataclasses.dataclass(frozen=True)
class Patches:
  """Patches cut out when they are asked for, so that many large ones need no memory.

  `halves` (2, H, W, 3) are of 0 to 255; corners (n, 2) are those of the upper left pixels, in the half.
  """

  halves: np.ndarray
  label: np.ndarray
  corners: np.ndarray
  size: int
  source: str | None
  factor: int

  def __len__(self) -> int:
    return len(self.label)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    row, column = self.corners[index]
    x = scaled(self.halves[self.label[index], row : row + self.size, column : column + self.size], 255)
    example = {'x': x, 'cond': self.label[index]}
    if self.source == 'grey':
      example['source'] = x @ np.asarray(LUMA, np.float32)[:, None]
    elif self.source == 'coarse':
      example['source'] = coarse(x[None], self.factor)[0]
    return example


@functools.cache
def _halves() -> dict[str, np.ndarray]:
  """The photographs' left halves as train, their right halves as test: (2, 427, 320, 3) of 0 to 255 each."""
  from sklearn.datasets import load_sample_images

  found = load_sample_images()
  order = [[name.rsplit('/', 1)[-1] for name in found.filenames].index(f'{name}.jpg') for name in NAMES]
  both = np.stack([found.images[i] for i in order])
  middle = both.shape[2] // 2
  return {'train': both[:, :, :middle], 'test': both[:, :, middle:]}
