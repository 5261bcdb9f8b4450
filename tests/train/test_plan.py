"""Bytes a device by the shardings against real arrays on eight host devices."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import jax
jax.config.update('jax_num_cpu_devices', 8)
import numpy as np
from diffjax.runs import config, directory, experiment
from diffjax.train import plan, sharding
from diffjax.train.loop import abstract_state
from diffjax.train.step import jit_train_step

for sizes in json.loads(sys.argv[1]):
  what = experiment.build(config.checked(dict(
    net=dict(name='mlp', width=256, depth=2), train=dict(batch=32, ema=(.9, .99), optimiser=dict(name='adam')))))
  mesh = sharding.make_mesh(**sizes)
  state, batch = directory.state_of(what, mesh), directory.batch_of(what, mesh)
  key, bins, layout = jax.random.key(0), directory.time_bins(what.process), what.layout(mesh)
  real = abstract_state(what.method, what.init, key, batch, mesh, what.averages, time_bins=bins, layout=layout)[0]()
  rows = sharding.place({'x': np.zeros((32, 8, 8, 1), np.float32), 'cond': np.zeros(32, np.int32)},
                        sharding.batch_sharding(mesh))
  found = []
  for shapes, arrays in ((state.roles, real.roles), (state.opt, real.opt), (state.ema, real.ema), (batch, rows),
                         (state, real)):
    held = [0] * 8
    for leaf in jax.tree.leaves(arrays):
      for shard in leaf.addressable_shards:
        held[shard.device.id] += shard.data.nbytes
    groups = plan.groups(shapes)
    found.append([plan.bytes_per_device(shapes), sum(g.bytes_per_device for g in groups), *held])
  whole = [plan.bytes_in_all(state), sum(leaf.nbytes for leaf in jax.tree.leaves(real))]
  print(json.dumps([found, whole]))
quick = {'xla_backend_optimization_level': 0}
step = jit_train_step(what.method, state, what.averages, time_bins=bins, layout=layout, options=quick)
memory = step.lower(state, batch, (0,)).compile().memory_analysis()
print(json.dumps([plan.bytes_per_device((state, batch)), memory.argument_size_in_bytes]))
"""


@pytest.mark.slow
def test_bytes_a_device_are_those_of_real_arrays():
  """Parameters, optimiser, averages, batch and the whole state, each on every device; and what XLA takes."""
  meshes = [dict(data=8), dict(data=2, fsdp=4), dict(data=2, fsdp=2, model=2)]
  done = subprocess.run([sys.executable, '-c', SCRIPT, json.dumps(meshes)], capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-3000:]
  states = []
  *lines, last = map(json.loads, done.stdout.splitlines())
  for found, (whole, nbytes) in lines:
    for expected, by_group, *held in found:
      assert by_group == expected and held == [expected] * 8
    assert whole == nbytes
    states.append(found[-1][0])
  assert max(states[1:]) < states[0]  # the first is whole on every device
  arguments, taken = last
  assert taken == arguments
