"""Files that are there as a whole or not at all, and arrays in them."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from diffjax.paths import place

__all__ = ['DamagedFile', 'read_npz', 'replacing', 'write', 'write_npz']


class DamagedFile(Exception):
  """A file that cannot be read as what it should be; the message says why."""


@contextlib.contextmanager
def replacing(path: Any) -> Iterator[epath.Path]:
  """The file beside `path` to write to: it takes its place when the block ends, and not where that raises."""
  path = place(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  beside = path.parent / f'.{path.name}.tmp'
  yield beside
  beside.replace(path)


def write(path: Any, data: bytes) -> None:
  """Writes a file, and its directory where there is none; one that is there is replaced."""
  with replacing(path) as beside:
    beside.write_bytes(data)


def write_npz(path: Any, arrays: dict[str, Any], compressed: bool = False) -> None:
  """Writes named arrays as an npz file, as `write` does."""
  buffer = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
  write(path, buffer.getvalue())


def read_npz(path: Any, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
  """The arrays of an npz file by name: all, or those of `names` that are there.

  Raises:
    DamagedFile: it is no npz file, it was cut off or changed, or holds Python objects.
  """
  try:
    with place(path).open('rb') as stream, np.load(stream, allow_pickle=False) as file:
      return {name: file[name] for name in file.files if names is None or name in names}
  except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise DamagedFile(str(error)) from error  # TypeError: a plain npy file
