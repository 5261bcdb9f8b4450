"""The evaluation protocol: samples against held-out data, with floors from class-matched training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics import digits
from diffjax.metrics.features import Features, pca_features, rows
from diffjax.metrics.frechet import frechet
from diffjax.metrics.kernel import kid, permutation_p
from diffjax.metrics.nearest import Nearest
from diffjax.metrics.neighbours import Copies, compare, neighbours
from diffjax.metrics.pairs import kth_nearest
from diffjax.metrics.resample import half_samples, interval, matched, spread, wilson
from diffjax.metrics.result import Metric
from diffjax.metrics.transport import energy_distance, sliced_wasserstein

__all__ = ['Progress', 'Reader', 'evaluate', 'features_for', 'measure', 'quiet']

Labelled = tuple[np.ndarray, np.ndarray | None]
Progress = Callable[[str, Any], Any]
FITTED = 2**24  # numbers of the training images that principal components are taken of, 128 MB
DIGITS = ('digits', 'digits_coarse', 'digits_edges', 'digits_noisy')  # sets whose x are digits as they were written


class Reader(Protocol):
  """A set that is read some images at a time, as `data.DataSet`."""

  @property
  def size(self) -> int:
    """How many images there are."""
    ...

  def take(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Reads some images: {'x': (b, ...)}, and 'cond': labels (b,) where the set has them."""
    ...


class InMemory:
  """Images and labels that are arrays, as a `Reader`."""

  def __init__(self, images: np.ndarray, labels: np.ndarray | None):
    if labels is not None and np.shape(labels) != (len(images),):
      raise InputError(f'labels of train have shape {np.shape(labels)}; {len(images)} images need ({len(images)},)')
    self.x, self.cond, self.size = images, labels, len(images)

  def take(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    return {'x': self.x[indices]} | ({} if self.cond is None else {'cond': np.asarray(self.cond)[indices]})


def quiet(_: str, items: Any) -> Any:
  """Nobody is told of progress."""
  return items


NAMES = (
  'frechet',
  'kernel_distance',
  'precision',
  'recall',
  'density',
  'coverage',
  'sliced_wasserstein',
  'energy_distance',
)


def features_for(name: str, train: np.ndarray | Reader) -> tuple[Features, Callable[[np.ndarray], np.ndarray] | None]:
  """The features of a data set and, where one is shipped, the classifier that reads its labels.

  Digits have networks of their own, points their coordinates; other images 16 principal components of their pixels: of
  all of `train`, or of as many images spread evenly over it as have FITTED numbers.
  """
  if name in DIGITS:
    return digits.feature_function(), digits.labels
  source = InMemory(train, None) if isinstance(train, np.ndarray) else train
  one = source.take([0])['x']
  if one.ndim == 2:
    return Features('coordinates', lambda points: np.asarray(points, np.float64)), None
  return pca_features(source.take(spread(max(FITTED // one.size, 64), source.size))['x']), None


def distances(
  reference: np.ndarray, samples: np.ndarray, labels: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
  """The figures of `NAMES` for features (n,d) and (m,d) and their labels, as one array (8,)."""
  near = neighbours(reference, samples)
  moved = sliced_wasserstein(reference, samples), energy_distance(reference, samples, labels)
  return np.array([frechet(reference, samples), kid(reference, samples, labels), *near, *moved])


def measure(
  samples: np.ndarray,
  labels: np.ndarray | None,
  held_out: Labelled,
  train: Labelled | Reader,
  features: Features,
  *,
  classify: Callable[[np.ndarray], np.ndarray] | None = None,
  subsets: int = 20,
  draws: int = 100,
  seed: int = 0,
  progress: Progress = quiet,
) -> dict[str, Metric]:
  """Every set metric of samples (m,...) against held-out images, each with floor and interval.

  The floor of a distance is its mean over `subsets` random sets of training images with the samples' own labels, put in
  the samples' place. Intervals come from `draws` random halves of both sets (`resample.half_samples`); 0 leaves them
  out, as sets of many thousands should. `label_consistency` is the share of samples that `classify` gives their label,
  its floor the same for held-out images; `near_copies` is of flattened pixels, its floor that of held-out images.

  Args:
    samples: generated images (m,...), in the range of the data.
    labels: (m,) the classes they were asked to be; None for an unconditional generator.
    held_out: images (n,...) and labels (n,) never trained on.
    train: images (N,...) and labels (N,), labels None exactly when `labels` is; or a `Reader` of them, which is read
      once from end to end, a chunk at a time, and of which the features are kept.
    features: images -> (.., d), with the id that the result quotes.
    classify: images -> labels; None leaves `label_consistency` out.
    subsets: training subsets of each floor.
    draws: redraws of each interval.
    seed: of subsets and redraws.
    progress: (name, items) -> the items, told as they go: chunks of training images, floors, intervals.

  Raises:
    InputError: labels missing on one side, of the wrong length, or of a class with too few training images; no more
      samples or held-out images than twice the number of features (than the features, with draws = 0); NaN in samples.
  """
  source = InMemory(*train) if isinstance(train, tuple) else train
  labels, held_labels = _strata(samples, labels, held_out, source)
  x, y = rows(features(held_out[0]), 'held_out'), rows(features(samples), 'samples')
  need = x.shape[1] * (2 if draws else 1) + 1
  if min(len(x), len(y)) <= need:
    raise InputError(
      f'{len(y)} samples and {len(x)} held-out images in {x.shape[1]} features; more than {need} are needed'
    )
  pool, train_labels, copies, known = _against(source, samples, held_out[0], features, progress)
  rng = np.random.default_rng(seed)
  strata = None if held_out[1] is None else (held_labels, labels)
  values = distances(x, y, strata)
  stand_ins = [matched(rng, train_labels, labels) for _ in range(subsets)]
  floors = np.mean([distances(x, pool[index], strata) for index in progress('floors', stand_ins)], axis=0)
  told = partial(progress, 'intervals')
  sds = half_samples(distances, x, y, strata, draws=draws, seed=seed, progress=told) if draws else None
  metric = partial(Metric, n=len(x), m=len(y), features=features.id)
  result = {
    name: metric(float(v), float(f), None if sds is None else interval(v, sds[i]))
    for i, (name, v, f) in enumerate(zip(NAMES, values, floors, strict=True))
  }
  if classify is not None and held_out[1] is not None:
    right, read = np.mean(classify(samples) == labels), np.mean(classify(held_out[0]) == held_labels)
    result['label_consistency'] = metric(float(right), float(read), wilson(right, len(y)))
  metric = partial(metric, features='pixels')
  result['near_copies'] = metric(copies.share, known.share, wilson(copies.share, len(y)))
  result['nearer_to_train'] = metric(copies.nearer, known.nearer, wilson(copies.nearer, len(y)))
  return result


def _against(
  source: Reader, samples: np.ndarray, held: np.ndarray, features: Features, progress: Progress
) -> tuple[np.ndarray, np.ndarray, Copies, Copies]:
  """All that training images are read for: features (N,d), labels (N,), and the near copies.

  Those of samples as in `neighbours.near_copies`, of held-out images as in `neighbours.near_copies_held_out`.
  """
  flat, others = _flat(samples), _flat(held)
  search = Nearest(np.concatenate([flat, others]))
  pool, labels = [], []
  for start in progress('training images', range(0, source.size, search.chunk)):
    part = source.take(np.arange(start, min(start + search.chunk, source.size)))
    pool.append(features(part['x']))
    labels.append(part.get('cond', np.zeros(len(part['x']), int)))
    search.add(_flat(part['x']))
  squared = search.squared(lambda index: _flat(source.take(index)['x']))
  of_samples, of_held = np.split(squared, [len(flat)])
  copies, known = compare(of_samples, kth_nearest(flat, others)), compare(of_held, kth_nearest(others))
  return np.concatenate(pool), np.concatenate(labels), copies, known


def _flat(images: np.ndarray) -> np.ndarray:
  return np.asarray(images).reshape(len(images), -1)


def evaluate(
  samples: np.ndarray,
  labels: np.ndarray | None,
  held_out: Labelled,
  train: Labelled | Reader,
  features: Features,
  *,
  classify: Callable[[np.ndarray], np.ndarray] | None = None,
  subsets: int = 20,
  draws: int = 100,
  seed: int = 0,
  progress: Progress = quiet,
) -> dict:
  """`measure` as the flat entries of report.json: NAME, NAME_floor, NAME_interval, with n, m and the feature id.

  The floors of near_copies, nearer_to_train and label_consistency are those of held-out images and named _heldout.
  kernel_distance_p is the permutation p-value, within classes. Arguments and errors as in `measure`.
  """
  metrics = measure(
    samples,
    labels,
    held_out,
    train,
    features,
    classify=classify,
    subsets=subsets,
    draws=draws,
    seed=seed,
    progress=progress,
  )
  report: dict[str, Any] = dict(n=len(held_out[0]), m=len(samples), features=features.id)
  for name, metric in metrics.items():
    fields = metric.as_dict()
    report[name] = fields['value']
    report[f'{name}_{"floor" if name in NAMES else "heldout"}'] = fields['floor']
    report[f'{name}_interval'] = fields['interval']
  strata = None if labels is None or held_out[1] is None else (held_out[1], labels)
  report['kernel_distance_p'] = permutation_p(features(held_out[0]), features(samples), labels=strata, seed=seed)
  return report


def _strata(
  samples: np.ndarray, labels: np.ndarray | None, held_out: Labelled, source: Reader
) -> tuple[np.ndarray, np.ndarray]:
  """Labels of samples and held-out images as int arrays; zeros for data without classes."""
  given = dict(samples=labels, held_out=held_out[1], train=source.take([0]).get('cond'))
  missing = [name for name, classes in given.items() if classes is None]
  if missing and len(missing) < 3:
    raise InputError(f'labels of {" and ".join(missing)} are None; give labels for all three sets or for none')
  result = []
  for name, images, classes in (('samples', samples, labels), ('held_out', *held_out)):
    classes = np.zeros(len(images), int) if classes is None else np.asarray(classes)
    if classes.shape != (len(images),):
      raise InputError(f'labels of {name} have shape {classes.shape}; {len(images)} images need ({len(images)},)')
    result.append(classes)
  return result[0], result[1]
