"""Data sets by name."""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from diffjax.data import files, toys
from diffjax.data.dataset import Arrays, DataSet, misnamed
from diffjax.errors import InputError

__all__ = ['digits', 'load', 'synthetic']


def load(name: str, split: str = 'train', data_dir: str | None = None, names: Sequence[str] = (), **options) -> DataSet:
  """The data set `name`, one split of it.

  Names: 'digits' (needs no download), any name of tensorflow_datasets ('cifar10', 'imagenet_resized/64x64'; option
  size), 'folder' (path, size, channels, background), 'npz' (path, classes, latents, factor), the toys (n, seed),
  'synthetic' (shape, n, classes) and those that are made or cut, of which the page of each says the law and options:
    `pairs`         digits_labels, digits_projection; digits_edges, digits_noisy, digits_styles, digits_coarse
    `photographs`   photographs       `moving`      moving_digits
    `tokens`        chains, grammar, digits_levels
    `series`        series            `spectra`     spectra           `molecules`   molecules
  `data_dir` is where tfds sets lie, by default $TFDS_DATA_DIR or ~/tensorflow_datasets. `names` states what the classes
  are called, in the order of their labels: it names those of a set that has none, orders the class folders of
  'folder', and others are refused.

  Raises:
    InputError: unknown name or option (with the nearest), set not found or not prepared (with the command), bad data.
  """
  _check_names(names)
  reader = own(name, data_dir) if name in OWN else partial(tfds_set, name, data_dir=data_dir)
  allowed = [p for p in inspect.signature(reader).parameters.values() if p.name not in GIVEN]
  for key in options:
    if key not in [p.name for p in allowed]:
      known = ', '.join(p.name for p in allowed) or 'none'
      raise InputError(f'option {key!r} of data set {name!r} does not exist, allowed: {known}')
  for p in allowed:
    if p.default is p.empty and p.name not in options:
      raise InputError(f'data set {name!r} needs the option {p.name!r}')
  if name == 'folder':
    options['names'] = names
  return _named(reader(split=split, **options), tuple(names))


def _check_names(names: Sequence[str]) -> None:
  if not isinstance(names, tuple | list) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
    raise InputError(f"data.names: got {names!r}; allowed: different names, one a class, such as ('cat', 'dog')")


def _named(found: DataSet, names: tuple[str, ...]) -> DataSet:
  """The set with these names of its classes; itself where none are stated."""
  if names and found.names not in (None, names):
    raise misnamed(found.name, found.names or (), names)
  if names and len(names) != found.classes:
    raise InputError(f'data.names: got {len(names)} names; allowed on {found.name}: {found.classes or 0}, one a class')
  return dataclasses.replace(found, names=names) if names else found


def own(name: str, data_dir: str | None) -> Callable:
  """The reader of a set that is not tfds'."""
  if name in toys.__all__:
    return partial(toys.toy, name)
  if name in files.__all__:
    return getattr(files, name)
  if name in MADE:
    reader = getattr(importlib.import_module(f'diffjax.data.{MADE[name]}'), name)
    return partial(reader, data_dir=data_dir) if 'data_dir' in inspect.signature(reader).parameters else reader
  return partial(digits, data_dir=data_dir) if name == 'digits' else synthetic


def digits(split: str, data_dir: str | None = None) -> DataSet:
  """See data/digits.py, which imports tfds and is therefore imported when used."""
  from diffjax.data import digits as module

  return module.digits(split, data_dir)


def synthetic(split: str, shape: tuple[int, ...], n: int = 1024, classes: int | None = None) -> DataSet:
  """Uniform noise of a given shape, to measure with."""
  rng = np.random.RandomState(0)
  cond = None if classes is None else rng.randint(classes, size=n).astype(np.int32)
  return DataSet('synthetic', Arrays(rng.uniform(-1, 1, (n, *shape)).astype(np.float32), cond), tuple(shape), classes)


def tfds_set(name: str, split: str, data_dir: str | None = None, size: int | None = None) -> DataSet:
  from diffjax.data import records

  try:
    return records.read(name, split, data_dir, size=size)
  except records.tfds.core.DatasetNotFoundError:
    near = difflib.get_close_matches(str(name), [*OWN, *records.names()], n=1, cutoff=0)[0]
    allowed = f'{", ".join(OWN)}, or a set of tensorflow_datasets prepared in {str(records.data_home(data_dir))!r}'
    raise InputError(f'data set {name!r} is not known, did you mean {near!r}? Allowed: {allowed}') from None


GIVEN = ('name', 'split', 'data_dir', 'names')
PAGES = dict(
  pairs=('digits_labels', 'digits_projection', 'digits_edges', 'digits_noisy', 'digits_styles', 'digits_coarse'),
  photographs=('photographs',),
  moving=('moving_digits',),
  tokens=('chains', 'grammar', 'digits_levels'),
  series=('series',),
  spectra=('spectra',),
  molecules=('molecules',),
  tables=('biased_table',),
)
MADE = {name: page for page, names in PAGES.items() for name in names}  # pages are imported when they are used
OWN = ('digits', *MADE, 'folder', 'npz', *toys.__all__, 'synthetic')
