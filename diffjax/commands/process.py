"""What a command sets of its process, and takes back at its end."""

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ['as_before']

VARIABLES = ('XLA_FLAGS',)
SETTINGS = (
  'jax_compilation_cache_dir', 'jax_enable_compilation_cache', 'jax_num_cpu_devices',
  'jax_persistent_cache_min_compile_time_secs', 'jax_persistent_cache_min_entry_size_bytes', 'jax_platforms',
)  # fmt: skip


@contextlib.contextmanager
def as_before() -> Iterator[None]:
  """Environment variables, JAX's settings and SIGTERM's handler are afterwards what they were.

  What JAX has made meanwhile stays: the devices it found, processes it joined.
  """
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  variables = {name: os.environ.get(name) for name in VARIABLES}
  settings = {name: getattr(jax.config, name) for name in SETTINGS}
  handler = signal.getsignal(signal.SIGTERM)
  try:
    yield
  finally:
    for name, value in variables.items():
      if value is None:
        os.environ.pop(name, None)
      else:
        os.environ[name] = value
    changed = {name: value for name, value in settings.items() if getattr(jax.config, name) != value}
    for name, value in changed.items():
      with contextlib.suppress(RuntimeError):  # the number of devices, once they are made
        jax.config.update(name, value)
    if any('cache' in name for name in changed):
      compilation_cache.reset_cache()  # which else keeps the directory it was opened with
    if handler is not None and signal.getsignal(signal.SIGTERM) is not handler:  # None: not Python's to set back
      signal.signal(signal.SIGTERM, handler)
