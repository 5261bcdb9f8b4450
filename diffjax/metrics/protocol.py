"""The evaluation protocol: samples against held-out data, with floors from class-matched training data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics import digits
from diffjax.metrics.features import Features, pca_features
from diffjax.metrics.frechet import frechet
from diffjax.metrics.kernel import kid, permutation_p
from diffjax.metrics.neighbours import near_copies, near_copies_held_out, neighbours
from diffjax.metrics.resample import half_samples, interval, matched, wilson
from diffjax.metrics.result import Metric
from diffjax.metrics.transport import energy_distance, sliced_wasserstein

__all__ = ['evaluate', 'features_for', 'measure']

Labelled = tuple[np.ndarray, np.ndarray | None]

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


def features_for(name: str, train: np.ndarray) -> tuple[Features, Callable[[np.ndarray], np.ndarray] | None]:
  """The features of a data set and, where one is shipped, the classifier that reads its labels.

  Digits have networks of their own, points their coordinates; other images 16 principal components of their pixels.
  """
  if name == 'digits':
    return digits.feature_function(), digits.labels
  if train.ndim == 2:
    return Features('coordinates', lambda points: np.asarray(points, np.float64)), None
  return pca_features(train), None


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
  train: Labelled,
  features: Features,
  classify: Callable[[np.ndarray], np.ndarray] | None = None,
  subsets: int = 20,
  draws: int = 100,
  seed: int = 0,
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
    train: images (N,...) and labels (N,); labels may be None exactly when `labels` is.
    features: images -> (.., d), with the id that the result quotes.
    classify: images -> labels; None leaves `label_consistency` out.
    subsets: training subsets of each floor.
    draws: redraws of each interval.
    seed: of subsets and redraws.

  Raises:
    InputError: labels missing on one side, of the wrong length, or of a class with too few training images; no more
      samples or held-out images than twice the number of features (than the features, with draws = 0); NaN in samples.
  """
  labels, held_labels, train_labels = _strata(samples, labels, held_out, train)
  x, y, pool = features(held_out[0]), features(samples), features(train[0])
  need = x.shape[1] * (2 if draws else 1) + 1
  if min(len(x), len(y)) <= need:
    raise InputError(
      f'{len(y)} samples and {len(x)} held-out images in {x.shape[1]} features; more than {need} are needed'
    )
  rng = np.random.default_rng(seed)
  strata = None if held_out[1] is None else (held_labels, labels)
  values = distances(x, y, strata)
  stand_ins = [pool[matched(rng, train_labels, labels)] for _ in range(subsets)]
  floors = np.mean([distances(x, stand_in, strata) for stand_in in stand_ins], axis=0)
  spread = half_samples(distances, x, y, strata, draws, seed) if draws else None
  metric = partial(Metric, n=len(x), m=len(y), features=features.id)
  result = {
    name: metric(float(v), float(f), None if spread is None else interval(v, spread[i]))
    for i, (name, v, f) in enumerate(zip(NAMES, values, floors, strict=True))
  }
  if classify is not None and held_out[1] is not None:
    right, known = np.mean(classify(samples) == labels), np.mean(classify(held_out[0]) == held_labels)
    result['label_consistency'] = metric(float(right), float(known), wilson(right, len(y)))
  flat = [np.asarray(images).reshape(len(images), -1) for images in (samples, train[0], held_out[0])]
  copies, known = near_copies(*flat), near_copies_held_out(*flat[1:])
  metric = partial(metric, features='pixels')
  result['near_copies'] = metric(copies.share, known.share, wilson(copies.share, len(y)))
  result['nearer_to_train'] = metric(copies.nearer, known.nearer, wilson(copies.nearer, len(y)))
  return result


def evaluate(
  samples: np.ndarray,
  labels: np.ndarray | None,
  held_out: Labelled,
  train: Labelled,
  features: Features,
  classify: Callable[[np.ndarray], np.ndarray] | None = None,
  subsets: int = 20,
  draws: int = 100,
  seed: int = 0,
) -> dict:
  """`measure` as the flat entries of report.json: NAME, NAME_floor, NAME_interval, with n, m and the feature id.

  The floors of near_copies, nearer_to_train and label_consistency are those of held-out images and named _heldout.
  kernel_distance_p is the permutation p-value, within classes. Arguments and errors as in `measure`.
  """
  metrics = measure(samples, labels, held_out, train, features, classify, subsets, draws, seed)
  report: dict[str, Any] = dict(n=len(held_out[0]), m=len(samples), features=features.id)
  for name, metric in metrics.items():
    fields = metric.as_dict()
    report[name] = fields['value']
    report[f'{name}_{"floor" if name in NAMES else "heldout"}'] = fields['floor']
    report[f'{name}_interval'] = fields['interval']
  labels, held_labels, _ = _strata(samples, labels, held_out, train)
  x, y = features(held_out[0]), features(samples)
  report['kernel_distance_p'] = permutation_p(x, y, labels=(held_labels, labels), seed=seed)
  return report


def _strata(samples: np.ndarray, labels: np.ndarray | None, held_out: Labelled, train: Labelled) -> list[np.ndarray]:
  """Labels of samples, held-out and training images as int arrays; zeros for data without classes."""
  given = dict(samples=(samples, labels), held_out=held_out, train=train)
  missing = [name for name, (_, classes) in given.items() if classes is None]
  if missing and len(missing) < 3:
    raise InputError(f'labels of {" and ".join(missing)} are None; give labels for all three sets or for none')
  result = []
  for name, (images, classes) in given.items():
    classes = np.zeros(len(images), int) if classes is None else np.asarray(classes)
    if classes.shape != (len(images),):
      raise InputError(f'labels of {name} have shape {classes.shape}; {len(images)} images need ({len(images)},)')
    result.append(classes)
  return result
