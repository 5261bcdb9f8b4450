"""Which figures make sense of which kind of data: families of figures by name, asked for by the data and the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.metrics import protocol
from diffjax.metrics.clouds import clouds
from diffjax.metrics.partners import partners
from diffjax.metrics.protocol import Progress, Reader, quiet
from diffjax.metrics.result import Metric
from diffjax.metrics.sets import Given, compared, count, flat
from diffjax.metrics.temporal import moments, temporal
from diffjax.metrics.tokens import likelihood, ngrams
from diffjax.metrics.transport import energy_distance, sliced_wasserstein

__all__ = ['FAMILIES', 'KINDS', 'general', 'lines', 'report']

KINDS = dict(
  images=('protocol',),
  latents=('protocol',),
  points=('protocol',),
  pairs=('protocol', 'partners'),
  modalities=('general',),
  tokens=('ngrams', 'likelihood'),
  series=('general', 'temporal', 'moments', 'likelihood', 'partners'),
  molecules=('general', 'clouds'),
)
NAMED = dict(rmse='unpaired', psnr='unpaired', log_likelihood='heldout', off_support='heldout', valid='heldout')


def report(
  kind: str,
  samples: Any,
  held: Mapping[str, Any],
  train: Reader,
  *,
  name: str = '',
  law: Any = None,
  families: Sequence[str] = (),
  subsets: int = 20,
  draws: int = 100,
  seed: int = 0,
  progress: Progress = quiet,
) -> dict[str, Any]:
  """The figures of this kind of data as flat entries for report.json: NAME, NAME_floor, NAME_interval, with n and m.

  Images, latents and points have `protocol.evaluate`, number for number. Other kinds have the families of KINDS, and a
  kind that is not there the general ones. Where the reference is no floor its name says what it is: _heldout the same
  of held-out data, _unpaired of data that know nothing of the source.

  Args:
    kind: of the data, `data.DataSet.kind`.
    samples: (n, ...), sample i drawn with the label and the source of held-out example i.
    held: a batch of held-out examples with all its keys; 'cond' only where the samples were asked for labels.
    train: the training set, with labels exactly when `held` has them.
    name: of the data set, by which it may have features of its own.
    law: its exact law, `data.DataSet.law`.
    families: of figures beside those of the kind, by their names in FAMILIES: what the method asks for.
    subsets: training subsets of each floor.
    draws: redraws of each interval; 0 leaves them out.
    seed: of subsets and redraws.
    progress: told of what takes long, as in `protocol.measure`.

  Raises:
    InputError: a family that does not exist; samples that are not finite, or not as many as held-out labels or sources;
      what `protocol.measure` refuses.
  """
  wanted = tuple(dict.fromkeys([*KINDS.get(kind, ('general',)), *families]))
  for family in wanted:
    if family != 'protocol' and family not in FAMILIES:
      raise InputError(f'figures: got {family!r}; allowed: protocol, {", ".join(FAMILIES)}')
  if 'protocol' not in wanted and not np.isfinite(flat(samples)).all():
    raise InputError('samples: got NaN or infinity; allowed: finite values')
  if count(samples) != count(held['x']) and {'cond', 'source'} & set(held):
    raise InputError(f'samples: got {count(samples)}; allowed: {count(held["x"])}, one for each held-out example')
  found: dict[str, Any] = dict(n=count(held['x']), m=count(samples))
  given = Given(samples, held, train, name, law, subsets, draws, seed, progress)
  for family in wanted:
    found |= _protocol(given) if family == 'protocol' else _entries(FAMILIES[family](given))
  return found


def lines(found: Mapping[str, Any]) -> list[tuple[str, float, float | None, Sequence[float]]]:
  """The figures of a report that have an interval, in its order: (name, value, floor or its like, interval)."""
  ends = ('floor', 'heldout', 'unpaired')
  return [
    (name, value, next((found[f'{name}_{end}'] for end in ends if f'{name}_{end}' in found), None), interval)
    for name, value in found.items()
    if isinstance(interval := found.get(f'{name}_interval'), Sequence)
  ]


def general(given: Given) -> dict[str, Metric]:
  """Sliced Wasserstein and energy distance of the numbers themselves: what any two sets have.

  Of several modalities all their numbers together, and each by itself: sliced_wasserstein_of_NAME.
  """
  x = given.held['x']
  views = {'': flat} | {f'_of_{part}': partial(_one, part) for part in (sorted(x) if isinstance(x, Mapping) else ())}
  result = {}
  for suffix, view in views.items():
    names = [f'{name}{suffix}' for name in ('sliced_wasserstein', 'energy_distance')]
    result |= compared(given, names, _apart, 'coordinates', view)
  return result


def _one(part: str, x: Mapping[str, Any]) -> np.ndarray:
  return flat(x[part])


def _apart(reference: np.ndarray, samples: np.ndarray, labels: Any) -> np.ndarray:
  return np.array([sliced_wasserstein(reference, samples), energy_distance(reference, samples, labels)])


def _protocol(given: Given) -> dict[str, Any]:
  features, classify = protocol.features_for(given.name, given.train)
  held = given.held['x'], given.labels
  return protocol.evaluate(
    given.samples, given.labels, held, given.train, features, classify=classify, subsets=given.subsets,
    draws=given.draws, seed=given.seed, progress=given.progress,
  )  # fmt: skip


def _entries(metrics: Mapping[str, Metric]) -> dict[str, Any]:
  found = {}
  for name, metric in metrics.items():
    fields = metric.as_dict()
    found[name] = fields['value']
    if fields['floor'] is not None:
      found[f'{name}_{NAMED.get(name, "floor")}'] = fields['floor']
    if fields['interval'] is not None:
      found[f'{name}_interval'] = fields['interval']
  return found


FAMILIES: dict[str, Callable[[Given], dict[str, Metric]]] = dict(
  general=general, partners=partners, ngrams=ngrams, likelihood=likelihood, temporal=temporal, moments=moments,
  clouds=clouds,
)  # fmt: skip
