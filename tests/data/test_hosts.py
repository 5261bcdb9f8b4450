"""Two real processes: process 0 prepares while the other waits, and their rows make the global batch."""

import socket
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

rank, home, address = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(address, 2, rank)
from diffjax.data import batches, load

digits = load('digits', data_dir=home)
local, whole = (next(batches(digits, 64, 0, shard=shard, start=20)) for shard in ((rank, 2), (0, 1)))
sharding = NamedSharding(jax.make_mesh((2,), ('data',)), PartitionSpec('data'))
for key, rows in local.items():
  array = jax.make_array_from_process_local_data(sharding, rows)
  assert array.shape == whole[key].shape
  for shard in array.addressable_shards:
    np.testing.assert_array_equal(shard.data, whole[key][shard.index])
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  environment = {'HOME': str(tmp_path), 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': ':'.join(p for p in sys.path if p)}
  command = [sys.executable, '-c', PROGRAM]
  runs = [
    subprocess.Popen([*command, str(r), str(tmp_path), address], stderr=subprocess.PIPE, text=True, env=environment)
    for r in (0, 1)
  ]
  for run in runs:
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
