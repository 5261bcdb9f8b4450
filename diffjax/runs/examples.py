"""The examples of a run: the data set its config names, batches to train on, and those that are held out."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffjax import data
from diffjax.errors import InputError
from diffjax.metrics.resample import spread
from diffjax.runs.config import ConfigError
from diffjax.runs.experiment import Experiment

__all__ = ['arrays', 'conditions', 'dataset', 'held', 'held_out', 'reader', 'stream']

DECLARED = ('name', 'shape', 'classes', 'others', 'vocabulary')  # what a config says of its data, not an option of them
CHUNK = 1024  # examples that are read at a time where only their labels are wanted


def dataset(experiment: Experiment, split: str) -> data.DataSet:
  """One split of the config's data, checked against the shape and classes that the config declares.

  Raises:
    ConfigError: they differ, or the data cannot be had.
  """
  declared = experiment.config.data.to_dict()
  options: dict[str, Any] = {k: v for k, v in declared.items() if k not in DECLARED}
  also = {'synthetic': ('shape', 'classes'), 'npz': ('classes',)}.get(declared['name'], ())
  options |= {k: declared[k] or None for k in also}
  try:
    found = data.load(declared['name'], split, **options)
  except (InputError, ImportError) as error:
    raise ConfigError(f'config.data: {error}') from error
  if found.shape != experiment.shape:
    raise ConfigError(f'config.data.shape: got {experiment.shape}; allowed: {found.shape}, that of {found.name}')
  for name, shape in experiment.parts.others.items():
    if found.others.get(name) != shape:
      raise ConfigError(
        f'config.data.others: got {name} of shape {shape}; allowed on {found.name}: {dict(found.others)}'
      )
  if experiment.parts.vocabulary != found.vocabulary:
    raise ConfigError(f'config.data.vocabulary: got {experiment.parts.vocabulary}; allowed on {found.name}: '
                      f'{found.vocabulary}')  # fmt: skip
  if experiment.classes not in (0, found.classes):
    allowed = 'only 0, it has no labels' if found.classes is None else f'{found.classes}, or 0 to ignore the labels'
    raise ConfigError(f'config.data.classes: got {experiment.classes}; allowed on {found.name}: {allowed}')
  return found


def arrays(experiment: Experiment, split: str) -> tuple[Any, np.ndarray | None]:
  """A whole split: x (n, *shape), or a dict of those, and labels (n,), None where the config ignores them."""
  whole = dataset(experiment, split).arrays()
  return whole['x'], whole['cond'] if experiment.classes else None


@dataclasses.dataclass(frozen=True)
class Images:
  """The examples of a set without their labels, read as it reads them."""

  whole: data.DataSet

  @property
  def size(self) -> int:
    return self.whole.size

  def take(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    return {key: values for key, values in self.whole.take(indices).items() if key != 'cond'}


def reader(experiment: Experiment, split: str) -> data.DataSet | Images:
  """A split to be read some examples at a time (`take`), without labels where the config ignores them."""
  source = dataset(experiment, split)
  return source if experiment.classes else Images(source)


def conditions(experiment: Experiment, labels: np.ndarray | None, examples: Mapping[str, np.ndarray]) -> Any:
  """What a generator is given with these labels: the labels, or a dict of them and what its method asks of examples."""
  names = experiment.method.conditions
  return {'label': labels, **{name: examples[name] for name in names}} if names else labels


def held_out(experiment: Experiment, source: data.DataSet, n: int) -> dict[str, np.ndarray]:
  """N examples of a set (all, where there are fewer): the same for every run, whatever the order.

  They are spread evenly over the set, with its classes in proportion, those of the data where the config has none
  (`metrics.resample.spread`). Labels are left out where the config ignores them.
  """
  labels = None
  if source.classes is not None and n < source.size:
    chunks = (range(i, min(i + CHUNK, source.size)) for i in range(0, source.size, CHUNK))
    labels = np.concatenate([source.take(chunk)['cond'] for chunk in chunks])
  taken = source.take(spread(n, source.size, labels))
  return taken if experiment.classes else {key: values for key, values in taken.items() if key != 'cond'}


def held(source: data.DataSet) -> data.DataSet:
  """The set in memory where it is small: read once, not again by every stream."""
  return source.loaded() if source.nbytes < 2**30 else source


def stream(experiment: Experiment, source: data.DataSet) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
  """Makes the function that opens the training batches at a given step, this process's rows only.

  start -> the batches from there on, the rows of this process; labels only where the config has classes.
  """
  config, shard = experiment.config, (jax.process_index(), jax.process_count())
  keep = ('x', 'augment', *(('cond',) if experiment.classes else ()), *experiment.method.needs)
  source = held(source)

  def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
    rows = data.batches(source, config.train.batch, config.seed, shard=shard, start=start, **config.loading)
    with contextlib.closing(rows):
      for batch in rows:
        yield {k: v for k, v in batch.items() if k in keep}

  return batches
