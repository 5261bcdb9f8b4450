"""Statistics as files."""

from typing import Any, TypeVar

import numpy as np

from diffjax.errors import InputError
from diffjax.files import DamagedFile, read_npz, write_npz
from diffjax.paths import place
from diffjax.statistics.types import Gaussian, ModelStatistics, NoiseEnergy, Spread

__all__ = ['load', 'save']

VERSION = 1
KINDS = {'energies': NoiseEnergy, 'linear': ModelStatistics, 'gaussian': Gaussian, 'data': Spread}

Statistics = TypeVar('Statistics', NoiseEnergy, ModelStatistics, Gaussian, Spread)


def save(path: str, value: NoiseEnergy | ModelStatistics | Gaussian | Spread) -> None:
  """Writes an npz file of one kind of statistics; a file that is there is replaced as a whole or not at all."""
  kind = next(name for name, made in KINDS.items() if type(value) is made)
  arrays: dict[str, Any] = {name: np.asarray(getattr(value, name), np.float64) for name in value.children()}
  write_npz(path, arrays | dict(kind=kind, version=VERSION))


def load(path: str, kind: type[Statistics]) -> Statistics:
  """The statistics of this kind (`NoiseEnergy`, `ModelStatistics`, `Gaussian` or `Spread`) that `save` wrote.

  Raises:
    InputError: it is not there, damaged, of another version or of another kind.
  """
  wanted = next(name for name, made in KINDS.items() if made is kind)
  if not place(path).exists():
    raise InputError(f'statistics: got {path}, which is not there; allowed: a file that diffjax statistics wrote')
  try:
    found: dict[str, Any] = read_npz(path)
    told, version = str(found.pop('kind')), int(found.pop('version'))
  except (DamagedFile, KeyError, ValueError, TypeError) as error:
    raise _refused(path, f'which is damaged ({error})') from None
  if version != VERSION:
    raise _refused(path, f'of version {version}', f'version {VERSION}')
  if told != wanted:
    raise _refused(path, f'which holds {told!r}', f'{wanted!r}')
  if found.keys() != set(kind.children()) or not _fits(found):
    raise _refused(path, 'which is damaged (its arrays do not fit each other)')
  return kind(**found)


def _refused(path: str, what: str, allowed: str = 'a whole one') -> InputError:
  return InputError(f'statistics: got {path}, {what}; allowed: {allowed}, as diffjax statistics writes it')


def _fits(found: dict[str, np.ndarray]) -> bool:
  """Numbers all finite, and as many as there are knots or axes."""
  free = ('low', 'high')  # may be infinite
  if not all(v.dtype == np.float64 and (k in free or np.isfinite(v).all()) for k, v in found.items()):
    return False
  if 'basis' in found:
    return found['basis'].shape == (found['mean'].size, found['var'].size)
  if 'std' in found:
    return found['std'].shape == () and bool(found['std'] >= 0)
  terms = [found[name] for name in ('value', 'l', 's', 'b') if name in found]
  rising = found['lam'].ndim == 1 and len(found['lam']) > 1 and (np.diff(found['lam']) > 0).all()
  return bool(rising) and all(v.shape == terms[0].shape and len(v) == len(found['lam']) for v in terms)
