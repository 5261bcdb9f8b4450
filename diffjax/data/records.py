"""TensorFlow Datasets without TensorFlow: the one module that calls tfds, so that its changes are met in one place."""

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from diffjax.data.dataset import DataSet, scaled
from diffjax.data.pictures import DEEPEST, square
from diffjax.errors import InputError
from diffjax.paths import place

__all__ = ['data_home', 'names', 'prepare', 'read', 'tfds']

NAME = re.compile(r'[A-Za-z]\w*(/[\w.-]+)?(:[\d.*]+)?')


def data_home(data_dir: str | None = None) -> epath.Path:
  """Where prepared sets lie: the argument, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
  return place(data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets', 'data_dir')


def names() -> list[str]:
  """The names of all sets whose builders come with tfds."""
  return tfds.list_builders(with_community_datasets=False)


def read(
  name: str, split: str, data_dir: str | None = None, size: int | None = None, levels: int | None = None
) -> DataSet:
  """A prepared set: its (image, label) pair, images (H, W, C) in [-1, 1], read at random without TensorFlow.

  `split` is any tfds split ('train', 'test[:500]'); `size` crops and resizes to a square; integers 0..levels are
  scaled to [-1, 1], levels 65535 for uint16 and else 255 by default. Floating features must lie there already.

  Raises:
    InputError: the set, its configuration or split does not exist, or is not prepared (says by which command).
  """
  home = data_home(data_dir)
  with quiet():
    builder: Any = find(name, home)
    if not builder.is_prepared():
      raise InputError(f'data set {name!r} is not prepared in {str(home)!r}. {recipe(name, home)}')
    try:
      source = builder.as_data_source(split=split)
    except NotImplementedError as e:
      raise InputError(f'data set {name!r} in {str(home)!r} is not in array_record format. {recipe(name, home)}') from e
    except (KeyError, ValueError) as e:
      raise InputError(f'split {split!r} of data set {name!r}, allowed: {", ".join(builder.info.splits)}') from e
  features = dict(builder.info.features.items())
  pair: Any = builder.info.supervised_keys
  image, label = pair if pair and len(pair) == 2 and pair[0] in features else ('image', 'label')
  if image not in features or not len(source):
    raise InputError(f'data set {name!r} has features {sorted(features)} and {len(source)} examples, needs images')
  kind = features.get(label)
  labelled = isinstance(kind, tfds.features.ClassLabel)
  records = Records(source, image, label if labelled else None, size, levels)
  classes = kind.num_classes if labelled else None
  # without names of its own a label is called by its number
  called = tuple(kind.names) if labelled and kind.names != [str(i) for i in range(classes or 0)] else None
  return DataSet(f'{name}/{split}', records, records[0]['x'].shape, classes, called, levels=records.values)


@dataclasses.dataclass(frozen=True)
class Records:
  """A tfds data source seen as {'x', 'cond'}."""

  source: Any
  image: str
  label: str | None
  size: int | None
  levels: int | None

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return self.decode(self.source[index])

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
    return [self.decode(record) for record in self.source.__getitems__(indices)]

  def highest(self, dtype: np.dtype) -> int:
    """The integer that becomes 1."""
    return self.levels or (DEEPEST if dtype == np.uint16 else 255)

  @property
  def values(self) -> int | None:
    """How many values a component has; None of floating features."""
    dtype = self.source[0][self.image].dtype
    return None if np.issubdtype(dtype, np.floating) else self.highest(dtype) + 1

  def decode(self, record: dict) -> dict[str, np.ndarray]:
    x = record[self.image]
    floating, levels = np.issubdtype(x.dtype, np.floating), self.highest(x.dtype)
    if self.size is not None and x.shape[:2] != (self.size, self.size):
      x = square(x, self.size, (-1, 1) if floating else (0, levels))
    x = x if floating else scaled(x, levels)
    return {'x': x} if self.label is None else {'x': x, 'cond': np.asarray(record[self.label], np.int32)}


def find(name: str, home: epath.Path):
  """The builder of name[/config][:version], from tfds' code or from the files in `home`."""
  if not NAME.fullmatch(name):  # not for tfds, which would look on Hugging Face and other places
    raise tfds.core.DatasetNotFoundError(name)
  try:
    return tfds.builder(name, data_dir=home)
  except tfds.core.DatasetNotFoundError:
    raise
  except AssertionError as e:  # how tfds refuses a version
    raise InputError(f'data set {name!r}: no such version, {str(e).rpartition(", ")[2]}') from e
  except ValueError as e:
    base = name.split('/')[0].split(':')[0]
    configs = ', '.join(f'{base}/{c}' for c in tfds.builder_cls(base).builder_configs)
    raise InputError(f'data set {name!r}: no such configuration, allowed: {configs or base}') from e


def recipe(name: str, home: epath.Path) -> str:
  """How to prepare a set; that, unlike reading it, needs TensorFlow, in whatever environment."""
  command = f'tfds build {name} --data_dir={home} --file_format=array_record'
  return f'Prepare it by: pip install tensorflow importlib_resources && {command}'


def prepare(builder_class: type, data_dir: str | None = None) -> None:
  """Write a generated set under `data_dir`, silently, once: by process 0 while the others wait.

  Where hosts share no file system each then writes its own; where independent runs race, the first to finish wins.

  Raises:
    InputError: the directory cannot be written.
  """
  import jax
  from jax.experimental import multihost_utils

  home = data_home(data_dir)

  def ready() -> bool:
    return builder_class(data_dir=home, file_format='array_record').is_prepared()

  def write():
    if ready():
      return
    tfds.disable_progress_bar()
    try:
      builder_class(data_dir=home, file_format='array_record').download_and_prepare()
    except OSError as e:
      if not ready():
        raise InputError(f'data_dir {str(home)!r} cannot be written ({e}); give data_dir or $TFDS_DATA_DIR') from e

  with quiet():
    try:
      if jax.process_index() == 0:
        write()
    finally:
      if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f'prepared {builder_class.__name__}')
    write()


@contextlib.contextmanager
def quiet():
  """Neither tfds' announcements on stdout nor its warnings about directories that are not there yet."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)
