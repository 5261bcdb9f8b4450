"""How every command begins."""

import os
from pathlib import Path
from typing import Any

__all__ = ['refused', 'start']


def start(distributed: str | None = None) -> None:
  """Join the other hosts if asked to, and keep compiled programs for the next start."""
  import jax

  if distributed:
    _join(distributed)
  cache = os.environ.get('JAX_COMPILATION_CACHE_DIR') or str(Path.home() / '.cache' / 'diffjax')
  jax.config.update('jax_compilation_cache_dir', cache)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _join(distributed: str) -> None:
  import jax

  if distributed == 'auto':
    jax.distributed.initialize()
    return
  parts = distributed.split(',')
  if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
    raise ValueError(f'distributed: got {distributed!r}; allowed: auto, or HOST:PORT,PROCESSES,INDEX')
  jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))


def refused(field: str, function: Any, *arguments: Any, **options: Any) -> Any:
  """A ValueError of a lower floor, with the config's name of the field in front."""
  try:
    return function(*arguments, **options)
  except ValueError as error:
    raise ValueError(f'config.{field}: {error}') from error
