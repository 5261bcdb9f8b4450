"""Paths as users write them: the one rule for those of command lines, configs, the environment and library calls."""

import os
from typing import Any

from etils import epath

from diffjax.errors import InputError

__all__ = ['expanded', 'place']


def expanded(path: Any, field: str = 'path') -> str:
  """The path with ~ or ~USER in front as that home directory; others, gs:// too, as they are.

  A file whose name begins with ~ is written ./~name.

  Raises:
    InputError: there is no such user.
  """
  found = os.path.expanduser(str(path))
  if found.startswith('~'):
    raise InputError(f'{field}: got {str(path)!r}; allowed: ~ or ~USER of a user that is there, or ./{path} for a file '
                     'of that name')  # fmt: skip
  return found


def place(path: Any, field: str = 'path') -> epath.Path:
  """`expanded`, to be read and written by."""
  return epath.Path(expanded(path, field))
