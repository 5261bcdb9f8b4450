"""Data of the user's own: npz files and image folders, read through epath so that gs:// works with credentials."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from diffjax.data.dataset import Arrays, DataSet, check, misnamed, scaled
from diffjax.data.pictures import check_colour, decoded, square
from diffjax.errors import InputError
from diffjax.files import DamagedFile, read_npz
from diffjax.paths import place

__all__ = ['folder', 'npz']

IMAGES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
ARRAYS = (('x', 'y'), ('samples', 'labels'), ('arr_0', 'arr_1'))


def npz(split: str, path: str, classes: int | None = None, latents: bool = False, factor: float = 1.0) -> DataSet:
  """An npz file with x and, for labelled data, y (n,) integers. '{split}' in the path is replaced by the split.

  Where there is no x, `samples` and `labels` are read, or else `arr_0` and `arr_1`: what diffjax sample writes.
  x is (n, H, W, C) uint8 (scaled to [-1, 1]), (n, H, W, C) floats in [-1, 1] already, or (n, d) floats of any range.
  With `latents` (n, H, W, C) are features of an autoencoder, floats of any range, here multiplied by `factor`: the
  one that brings them to about unit variance, .18215 for Stable Diffusion's where the file holds them without it.
  `classes` defaults to max(y) + 1.

  Raises:
    InputError: no such file, no x, wrong shape or type, NaN, images outside [-1, 1], labels outside 0..classes-1, a
      factor without latents.
  """
  if factor != 1 and not latents:
    raise InputError(f'npz: factor is {factor}, allowed: 1 without latents=True')
  place = at(path, split)
  if not place.is_file():
    raise InputError(
      f'data.path {str(place)!r}: no such file; an npz file with arrays x and, for labels, y is expected'
    )
  try:
    found = read_npz(place, [name for pair in ARRAYS for name in pair])
  except DamagedFile as e:
    raise InputError(f'data.path {str(place)!r}: not an npz file of plain arrays ({e})') from e
  here = next((pair for pair in ARRAYS if pair[0] in found), ARRAYS[0])
  x, y = (found.get(name) for name in here)
  if x is None or x.ndim not in (2, 4) or not len(x):
    got = 'missing' if x is None else f'of shape {x.shape}'
    raise InputError(f'{place}: array {here[0]} is {got}, must be images (n, H, W, C) or vectors (n, d)')
  if latents and x.ndim != 4:
    raise InputError(f'{place}: array {here[0]} is of shape {x.shape}, latents must be (n, H, W, C)')
  levels = 256 if x.dtype == np.uint8 and x.ndim == 4 and not latents else None
  if levels:
    x = scaled(x, 255)
  elif not np.issubdtype(x.dtype, np.floating):
    also = '' if latents else ', or uint8 for images of 0 to 255'
    raise InputError(f'{place}: array {here[0]} is {x.dtype}, must be floating{also}')
  x = np.ascontiguousarray(x, np.float32)
  x = x if factor == 1 else x * np.float32(factor)
  if y is None and classes is not None:
    raise InputError(f'{place}: array {here[1]} is missing, but classes={classes} was asked for')
  if y is not None:
    if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
      raise InputError(
        f'{place}: array {here[1]} is {y.dtype} of shape {y.shape}, must be integers of shape {x.shape[:1]}'
      )
    classes = max(int(y.max()) + 1, 1) if classes is None else classes
    check(str(place), x[:0], y, classes)
    y = y.astype(np.int32)
  check(str(place), x, bounded=not latents)
  return DataSet(str(place), Arrays(x, y), x.shape[1:], classes, kind='latents' if latents else '', levels=levels)


def folder(
  split: str, path: str, size: int, channels: int = 3, background: str = 'white', names: Sequence[str] = ()
) -> DataSet:
  """Images of a folder, cropped about the centre to a square and resized to size x size. '{split}' is replaced.

  Sub-directories are classes, in natural order (1, 2, 10) or in that of `names`, which must name them all; images lying
  directly in the folder have no labels. 16-bit and floating grey images keep their levels. What is transparent is
  composed on the colour `background`.

  Raises:
    InputError: no such folder, no images, images both beside and inside sub-directories, channels not 1 or 3, no
      colour, other sub-directories than `names`.
  """
  if channels not in (1, 3) or size < 1:
    raise InputError(f'folder: size={size}, channels={channels}; size must be at least 1 and channels 1 or 3')
  check_colour('data.background', background)
  place = at(path, split)
  if not place.is_dir():
    raise InputError(
      f'data.path {str(place)!r}: no such folder; one with a sub-directory of images a class is expected'
    )
  entries = sorted(p for p in place.iterdir() if not p.name.startswith('.'))
  classes = sorted((p for p in entries if p.is_dir()), key=lambda p: natural(p.name))
  loose = [p for p in entries if p.suffix.lower() in IMAGES]
  if classes and loose:
    raise InputError(
      f'{place}: image {loose[0].name!r} lies beside class folder {classes[0].name!r}; allowed: one kind'
    )
  if names:
    found = [p.name for p in classes]
    if set(found) != set(names):
      raise misnamed(str(place), found, names)
    classes.sort(key=lambda p: list(names).index(p.name))
  files = [(p, None) for p in loose]
  for label, directory in enumerate(classes):
    inside = [(p, label) for p in sorted(directory.iterdir()) if p.suffix.lower() in IMAGES]
    if not inside:
      raise InputError(f'{directory}: class folder without images; allowed endings: {", ".join(IMAGES)}')
    files += inside
  if not files:
    raise InputError(f'{place}: no images; allowed endings: {", ".join(IMAGES)}')
  source = Images(tuple(files), size, channels, background)
  called = tuple(p.name for p in classes) or None
  return DataSet(str(place), source, (size, size, channels), len(classes) or None, called)


def natural(name: str) -> tuple[list, str]:
  """The key that sorts names by the numbers in them: 1, 2, 10."""
  return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)], name


@dataclasses.dataclass(frozen=True)
class Images:
  """Image files and their labels, decoded when asked for."""

  files: tuple[tuple[epath.Path, int | None], ...]
  size: int
  channels: int
  background: str

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    path, label = self.files[index]
    try:
      pixels, white = decoded(path.read_bytes(), self.channels, self.background)
    except (OSError, SyntaxError, ValueError) as e:
      raise InputError(f'{path}: not a readable image ({e})') from e
    x = scaled(square(pixels, self.size, (0, white)), white)
    return {'x': x} if label is None else {'x': x, 'cond': np.asarray(label, np.int32)}


def at(path: str, split: str) -> epath.Path:
  return place(str(path).replace('{split}', split), 'data.path')
