"""A large draw as files, by as many processes as there are; stopped at any moment and started again, it goes on.

OUT/manifest.json            what the samples are of
OUT/part-000000-000390.npz   those of the seeds 0 to 390, whole or not there: ...
OUT.npz                      all of them, once all parts are there

Images are kept as the evaluation suites read them: `arr_0` uint8 (n, H, W, C) and `arr_1` the labels, in the order of
the seeds; other data as `samples` float32 and `labels`.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from diffjax import finite
from diffjax.errors import InputError
from diffjax.files import DamagedFile, read_npz, replacing, write, write_npz
from diffjax.paths import place
from diffjax.runs.record import differences

__all__ = ['Parts', 'pixels']

MOST = 512  # samples of a part


def pixels(x: np.ndarray) -> np.ndarray:
  """Images in [-1, 1] as uint8: 127.5 x + 128, cut to [0, 255] and rounded down, which is (x + 1) 127.5 rounded.

  Raises:
    FloatingPointError: one is not finite; cast, it would be black.
  """
  finite.check('images', finite.lost(x), 'images')
  return np.clip(127.5 * x + 128, 0, 255).astype(np.uint8)


class Parts:
  """The files of one draw.

  Args:
    out: where, without suffix.
    seeds, labels: (n,) the samples' indices, rising, and their classes or None.
    made: JSON, all that the samples depend on; kept in the manifest.

  Raises:
    InputError: the directory is of another draw (what differs is named), holds other files, or is not one that all
      processes see.
  """

  def __init__(self, out: str, seeds: np.ndarray, labels: np.ndarray | None, made: dict[str, Any], images: bool):
    self.folder, self.whole = place(out, 'out'), place(f'{out}.npz', 'out')
    self.seeds, self.labels, self.images = seeds, labels, images
    self.names = ('arr_0', 'arr_1') if images else ('samples', 'labels')
    hosts = jax.process_count()
    rounds = -(-len(seeds) // (hosts * MOST))
    rows = self._claim(json.loads(json.dumps(made)), -(-len(seeds) // (hosts * rounds)))  # equally many a process
    self.ranges = [range(i, min(i + rows, len(seeds))) for i in range(0, len(seeds), rows)]

  def _claim(self, made: dict[str, Any], rows: int) -> int:
    """Writes the manifest, or finds it the same; the number of samples a part."""
    path = self.folder / 'manifest.json'
    there = self._manifest(path)
    multihost_utils.sync_global_devices('read')  # nobody writes before all have looked
    if there is None and jax.process_index() == 0:
      write(path, (json.dumps(dict(made=made, rows=rows), indent=2) + '\n').encode())
    multihost_utils.sync_global_devices('written')
    if not path.exists():
      raise InputError(f'out: {path} of process 0 is not seen by process {jax.process_index()}; allowed: a directory '
                       'that all hosts share')  # fmt: skip
    told = there and differences(there['made'], made)
    if told:
      raise InputError(f'out: {self.folder} holds samples of another draw: {told}; allowed: the same draw, or another '
                       'path')  # fmt: skip
    return there['rows'] if there else rows

  def _manifest(self, path: epath.Path) -> Any:
    allowed = 'allowed: a path where nothing is, or a draw that was begun'
    if path.exists():
      try:
        found = json.loads(path.read_text())
        return dict(made=found['made'], rows=int(found['rows']))
      except (ValueError, KeyError, TypeError):
        raise InputError(f'out: {path} is damaged; {allowed}') from None
    for other in (self.whole, self.folder):
      if other.exists() and not (other.is_dir() and not any(other.iterdir())):
        raise InputError(f'out: got {self.folder}, but {other} is there and no manifest; {allowed}')
    return None

  def missing(self) -> np.ndarray:
    """The parts that are not there, as process 0 sees it."""
    there = {file.name for file in self.folder.iterdir()}
    gone = np.array([self._path(part).name not in there for part in range(len(self.ranges))])
    return np.flatnonzero(multihost_utils.broadcast_one_to_all(gone))

  def fill(self, draw: Callable[[np.ndarray], Iterator[np.ndarray]]) -> None:
    """Draws this process's share of the missing parts, and writes each as soon as it is complete.

    Args:
      draw: places in `seeds`, equally many in all processes, to the samples there, some at a time.

    Raises:
      FloatingPointError: samples are not finite; in all processes, and what is complete before them is written.
    """
    missing, hosts = self.missing(), jax.process_count()
    if not len(missing):
      return
    shares = [np.concatenate([self.ranges[part] for part in missing[h::hosts]] or [[0]]) for h in range(hosts)]
    parts = list(missing[jax.process_index() :: hosts])
    places = np.resize(shares[jax.process_index()], max(map(len, shares))).astype(np.int64)
    held, done = [], 0
    for some in draw(places):
      self._check(some, self.seeds[places[done : done + len(some)]])
      done += len(some)
      held.append(pixels(some) if self.images else some)
      while parts and sum(map(len, held)) >= len(self.ranges[parts[0]]):
        whole = np.concatenate(held)
        rows = len(self.ranges[parts[0]])
        self._write(parts.pop(0), whole[:rows])
        held = [whole[rows:]]
    multihost_utils.sync_global_devices('drawn')

  def _check(self, some: np.ndarray, seeds: np.ndarray) -> None:
    """Raises FloatingPointError in every process where one of them drew what is not finite."""
    told = np.stack([seeds, finite.lost(some)], 1)
    if jax.process_count() > 1:
      told = multihost_utils.process_allgather(told[None], tiled=True).reshape(-1, 2)
    finite.check(f'samples {told[:, 0].min()} to {told[:, 0].max()}', told[:, 1] > 0, names=told[:, 0])

  def _path(self, part: int) -> epath.Path:
    first, last = self.seeds[self.ranges[part][0]], self.seeds[self.ranges[part][-1]]
    return self.folder / f'part-{first:06d}-{last:06d}.npz'

  def _write(self, part: int, samples: np.ndarray) -> None:
    arrays: dict[str, Any] = {self.names[0]: samples}
    if self.labels is not None:
      arrays[self.names[1]] = self.labels[self.ranges[part]]
    write_npz(self._path(part), arrays)

  def join(self) -> None:
    """Writes OUT.npz, a part in memory at a time; called by one process once no part is missing."""
    names = self.names[: 1 if self.labels is None else 2]
    with replacing(self.whole) as beside, beside.open('wb') as file, zipfile.ZipFile(file, 'w') as archive:
      for name in names:
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
          for part in range(len(self.ranges)):
            rows = self._read(part, name)
            if part == 0:
              shape = (len(self.seeds), *rows.shape[1:])
              header = dict(descr=np.lib.format.dtype_to_descr(rows.dtype), fortran_order=False, shape=shape)
              np.lib.format.write_array_header_1_0(entry, header)
            entry.write(rows.tobytes())

  def _read(self, part: int, name: str) -> np.ndarray:
    path = self._path(part)
    try:
      rows = read_npz(path, (name,))[name]
    except (DamagedFile, KeyError) as error:
      raise InputError(f'out: {path} cannot be read ({error}); remove it and start again') from None
    if len(rows) != len(self.ranges[part]):
      raise InputError(f'out: {path} has {len(rows)} samples, not {len(self.ranges[part])}; remove it and start again')
    return rows
