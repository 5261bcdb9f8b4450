"""How every command begins."""

import argparse
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from diffjax.errors import InputError
from diffjax.paths import expanded
from diffjax.runs.config import ConfigDict, refused

__all__ = ['add_distributed_arguments', 'barrier', 'mesh_of', 'start']

TIMEOUT = 100


def add_distributed_arguments(parser: argparse.ArgumentParser) -> None:
  """The options of a command that runs as several processes."""
  parser.add_argument(
    '--distributed',
    metavar='auto',
    help='run as one process of several: auto (TPU pod, SLURM, Open MPI), or HOST:PORT,PROCESSES,INDEX, '
    'the address of process 0',
  )
  parser.add_argument(
    '--timeout',
    type=int,
    default=TIMEOUT,
    metavar='SECONDS',
    help=f'{TIMEOUT} by default: how long to wait for the other processes at the start, and for a sign of life of one '
    'that is lost; then this one ends too, by its own line or by that of JAX ("another task died")',
  )


def start(config: ConfigDict, distributed: str | None = None, timeout: int = TIMEOUT) -> None:
  """Before JAX looks for devices: join the other hosts if asked to, split the CPU, keep compiled programs.

  `config.mesh.cpu_devices` cuts the host's CPU into so many devices, 0 leaves it whole. XLA runs a small convolution on
  one thread, so a small network trains faster with its batch over as many devices as there are cores.
  """
  import jax

  if distributed:
    _join(distributed, timeout)
  if config.mesh.cpu_devices:
    with contextlib.suppress(RuntimeError):  # a process that has used JAX before keeps the devices it has
      jax.config.update('jax_num_cpu_devices', config.mesh.cpu_devices)
  cache = expanded(os.environ.get('JAX_COMPILATION_CACHE_DIR') or '~/.cache/diffjax', 'JAX_COMPILATION_CACHE_DIR')
  jax.config.update('jax_compilation_cache_dir', cache)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def barrier(where: str) -> None:
  """Waits until all processes are here."""
  from jax.experimental import multihost_utils

  multihost_utils.sync_global_devices(where)


def mesh_of(config: ConfigDict) -> Any:
  """The mesh of `config.mesh`."""
  from diffjax.train import sharding

  return refused('mesh', sharding.make_mesh, **{axis: config.mesh[axis] for axis in sharding.AXES})


def _join(distributed: str, timeout: int) -> None:
  """Wait until all processes are there.

  Raises:
    InputError: the text names no processes, or `auto` finds none; SystemExit by `_deadline` if some do not come.
  """
  import jax

  allowed = 'allowed: auto, or HOST:PORT,PROCESSES,INDEX with INDEX from 0 to PROCESSES - 1'
  if timeout < 1:
    raise InputError(f'timeout: got {timeout}; allowed: a whole number of seconds, at least 1')
  given: dict[str, Any] = {}
  if distributed != 'auto':
    address, *numbers = distributed.split(',')
    if len(numbers) != 2 or not all(n.isdigit() for n in numbers) or not address.rpartition(':')[2].isdigit():
      raise InputError(f'distributed: got {distributed!r}; {allowed}')
    processes, index = map(int, numbers)
    if index >= processes:
      raise InputError(f'distributed: got process {index} of {processes}; {allowed}')
    if index == 0:
      _free(int(address.rpartition(':')[2]))
    given = dict(coordinator_address=address, num_processes=processes, process_id=index)
    # should JAX end the process itself, it names no address
    print(f'joining {address} as process {index} of {processes}', file=sys.stderr, flush=True)
  with _deadline(timeout, distributed):
    try:  # the longer limit of JAX's own is never met
      jax.distributed.initialize(**given, initialization_timeout=4 * timeout, heartbeat_timeout_seconds=timeout)
    except ValueError as error:
      raise InputError(
        f'distributed: got {distributed!r}, which does not tell the processes ({error}); {allowed}'
      ) from None


def _free(port: int) -> None:
  """Raises InputError where process 0 cannot listen: JAX would end by a segmentation fault."""
  try:
    socket.create_server(('', port)).close()
  except (OSError, OverflowError) as error:
    raise InputError(
      f'distributed: got port {port}, which this host cannot open ({error}); allowed: a free one'
    ) from None


@contextlib.contextmanager
def _deadline(seconds: int, where: str) -> Iterator[None]:
  """Ends this process with one line if the block takes longer: JAX would abort it with a stack of C++ frames."""

  def end() -> None:
    line = (f'diffjax: distributed: {where}: not all processes came within {seconds} s; allowed: an address that every '
            'host reaches, each INDEX once, all started within --timeout')  # fmt: skip
    print(line, file=sys.stderr, flush=True)
    os._exit(1)

  timer = threading.Timer(seconds, end)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
