"""Where the data of a run lie and how wide they are: measured once at its start, kept beside it, used to sample."""

import math
from typing import Any

import numpy as np
from etils import epath

from diffjax import statistics
from diffjax.data import DataSet
from diffjax.statistics import Spread

__all__ = ['measure', 'overall', 'spread']

MOST = 2**28  # bytes of examples that are looked at: all of CIFAR-10's fifty thousand but half, in seconds


def measure(workdir: str, source: DataSet) -> None:
  """Writes WORKDIR/statistics/data.npz, for several modalities data-NAME.npz each; what is there stays as it is.

  Of tokens it keeps nothing: they lie nowhere.

  Of large sets it takes examples evenly spread over the set, so that classes in a row are met in proportion.
  """
  files = _files(workdir, source.shape)
  if source.vocabulary is not None or all(path.exists() for path in files.values()):
    return
  n = min(source.size, max(1024, MOST // max(1, source.nbytes // source.size)))
  places = np.linspace(0, source.size - 1, n).astype(np.int64)
  chunks = [places[i : i + 1024] for i in range(0, n, 1024)]
  for name, path in files.items():
    parts = (source.take(chunk)['x'] for chunk in chunks)
    statistics.save(str(path), statistics.spread(part if name is None else part[name] for part in parts))


def spread(workdir: str, shape: Any) -> Any:
  """What `measure` kept of data of this shape: a Spread, a dict of them by modality; None where nothing is kept.

  Raises:
    InputError: a file is damaged.
  """
  files = _files(workdir, shape)
  if not all(path.exists() for path in files.values()):
    return None  # a run that an earlier version began
  found = {name: statistics.load(str(path), Spread) for name, path in files.items()}
  return found if isinstance(shape, dict) else found[None]


def overall(spread: Any) -> float | None:
  """The deviation over all modalities together, sqrt(sum_m d_m std_m^2 / sum_m d_m); None where there is none."""
  parts = list(spread.values()) if isinstance(spread, dict) else [] if spread is None else [spread]
  sizes = [math.prod(np.shape(part.mean)) for part in parts]
  std = math.sqrt(sum(d * float(p.std) ** 2 for d, p in zip(sizes, parts, strict=True)) / max(1, sum(sizes)))
  return std or None  # of constant data, nothing to go by


def _files(workdir: str, shape: Any) -> dict[str | None, Any]:
  folder = epath.Path(workdir) / 'statistics'
  if isinstance(shape, dict):
    return {name: folder / f'data-{name}.npz' for name in shape}
  return {None: folder / 'data.npz'}
