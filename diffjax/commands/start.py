"""How every command begins."""

import contextlib
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from diffjax.config import refused

__all__ = ['mesh_of', 'start']


def start(config: ConfigDict, distributed: str | None = None) -> None:
  """Before JAX looks for devices: join the other hosts if asked to, split the CPU, keep compiled programs.

  `config.mesh.cpu_devices` cuts the host's CPU into so many devices, 0 leaves it whole. XLA runs a small convolution on
  one thread, so a small network trains faster with its batch over as many devices as there are cores.
  """
  import jax

  if distributed:
    _join(distributed)
  if config.mesh.cpu_devices:
    with contextlib.suppress(RuntimeError):  # a process that has used JAX before keeps the devices it has
      jax.config.update('jax_num_cpu_devices', config.mesh.cpu_devices)
  cache = os.environ.get('JAX_COMPILATION_CACHE_DIR') or str(Path.home() / '.cache' / 'diffjax')
  jax.config.update('jax_compilation_cache_dir', cache)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def mesh_of(config: ConfigDict) -> Any:
  """The mesh of `config.mesh`."""
  from diffjax.train import sharding

  return refused('mesh', sharding.make_mesh, **{axis: config.mesh[axis] for axis in sharding.AXES})


def _join(distributed: str) -> None:
  import jax

  if distributed == 'auto':
    jax.distributed.initialize()
    return
  parts = distributed.split(',')
  if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit() and int(parts[2]) < int(parts[1])):
    raise ValueError(f'distributed: got {distributed!r}; allowed: auto, or HOST:PORT,PROCESSES,INDEX with INDEX from '
                     '0 to PROCESSES - 1')  # fmt: skip
  jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))
