"""Tables as files: what a search found, to be sampled with by anyone who has the process."""

from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.files import DamagedFile, read_npz, write_npz
from diffjax.fingerprint import matching, stamp
from diffjax.paths import place
from diffjax.process import Process
from diffjax.solvers.table import Rows, Table

__all__ = ['SolverFile', 'read', 'write']

VERSION = 1
FIELDS = {'version', 'about', 'nfe', 'stamp', 'registers', 'stochastic', 'skips', *Rows._fields}


class SolverFile(NamedTuple):
  """A table from a file and what was written about it."""

  table: Table
  about: str


def write(path: str, table: Table, process: Process, about: str) -> None:
  """Keep a table, bit for bit, with the stamp of the process it is for and a line about where it comes from.

  A file that is there is replaced, as a whole or not at all. The arrays of the .npz: `Rows`' t, weights, evaluated and
  stream, registers, stochastic, skips, nfe, stamp (`diffjax.fingerprint`), about and the format's version.
  """
  arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in table.rows._asdict().items()}
  arrays |= dict(registers=np.array(table.registers), stochastic=table.stochastic, skips=table.skips, nfe=table.nfe,
                 stamp=stamp(process), about=about, version=VERSION)  # fmt: skip
  write_npz(path, arrays)


def read(path: str, process: Process, shape: tuple[int, ...] = ()) -> SolverFile:
  """The table that `write` kept, and the line about it.

  Args:
    path: the file.
    process: the forward process.
    shape: of one example, for tables with element-wise weights.

  Raises:
    InputError: the file is not there, damaged, of another version, for another process or another shape of data.
  """
  if not place(path).exists():
    raise InputError(f'solver: got {path}, which is not there; allowed: a file that diffjax search wrote')
  try:
    found = read_npz(path)
    version = int(found['version'])
  except (DamagedFile, KeyError, ValueError, TypeError) as error:
    raise _refused(path, f'which is damaged ({error})') from None
  if version != VERSION:
    raise _refused(path, f'of version {version}', f'version {VERSION}')
  if found.keys() != FIELDS or not _fits(found):
    raise _refused(path, 'which is damaged (its arrays do not fit each other)')
  matching(process, found['stamp'], f'solver {path}', 'diffjax search')
  elements = found['weights'].shape[3:]
  if elements and elements != tuple(shape):
    raise _refused(path, f'whose weights are for data of shape {elements}', f'{tuple(shape)}, the shape of the data')
  rows = Rows(*(found[name] for name in Rows._fields))
  names = tuple(str(name) for name in found['registers'])
  return SolverFile(Table(rows, names, bool(found['stochastic']), bool(found['skips'])), str(found['about']))


def _refused(path: str, what: str, allowed: str = 'a whole one') -> InputError:
  return InputError(f'solver: got {path}, {what}; allowed: {allowed}, as diffjax search writes it')


def _fits(found: dict[str, np.ndarray]) -> bool:
  """One size throughout, times and weights that are finite numbers, evaluated rows counted."""
  t, weights, evaluated, order = (found[name] for name in Rows._fields)
  n, q = len(np.atleast_1d(t)), found['registers'].size
  shapes = t.shape == evaluated.shape == order.shape == (n,) and weights.shape[:3] == (n, q, q + 4)
  kinds = t.dtype.kind == weights.dtype.kind == 'f' and evaluated.dtype == bool and order.dtype.kind == 'i'
  flags = all(found[name].shape == () and found[name].dtype == bool for name in ('stochastic', 'skips'))
  whole = shapes and kinds and flags and found['stamp'].shape == (5, 3) and found['nfe'].shape == ()
  if not (whole and np.isfinite(t).all() and np.isfinite(weights).all() and int(found['nfe']) == evaluated.sum()):
    return False
  return bool((found['skips'] or evaluated.all()) and (found['stochastic'] or not weights[:, :, q + 3].any()))
