"""Seconds to the first train step of each preset, in one process and in a second one that finds its programs cached.

    python -m experiments.bench.compile [digits toy2d ...]

Batch 8 on one device; the network, its losses and optimiser at full size. Counted from the built experiment on:
tracing, lowering and compiling initialisation and step, and the step itself; imports and data are not. Networks of more
than 50 million parameters are compiled ahead of time and not run. Bound: second <= 30% of first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / 'configs'
SMALL = ['--config.train.batch=8', '--config.mesh.data=1', '--config.mesh.fsdp=1', '--config.mesh.cpu_devices=0']
LARGEST = 50_000_000  # parameters of a network that is run
PARTS = ('trace', 'lower', 'compile', 'initialise', 'step')


def first_step(config):
  """Seconds by part, in this process, as in `loop.fit`; `initialise` has its own compiling in it."""
  from diffjax.commands.start import mesh_of, start
  from diffjax.runs import config as configs
  from diffjax.runs import directory, experiment

  config = configs.override(configs.from_file(config), SMALL)
  start(config)
  import jax

  from diffjax.train.loop import abstract_state
  from diffjax.train.roles import active_phases
  from diffjax.train.step import jit_train_step

  what = experiment.build(config)
  mesh, method, averages, bins = mesh_of(config), what.method, what.averages, directory.time_bins(what.process)
  batch, layout, key = directory.batch_of(what, mesh), what.layout(mesh), jax.random.key(0)
  marks = [time.perf_counter()]
  mark = lambda: marks.append(time.perf_counter())  # noqa: E731
  make, target = abstract_state(method, what.init, key, batch, mesh, averages, time_bins=bins, layout=layout)
  step = jit_train_step(method, target, averages, accumulate=config.train.accumulate, time_bins=bins, layout=layout)
  traced = step.trace(target, batch, active_phases(method, 0))
  mark()
  lowered = traced.lower()
  mark()
  compiled = lowered.compile()
  mark()
  if experiment.count(target.roles) <= LARGEST:
    state = jax.block_until_ready(make())
    mark()
    zeros = jax.tree.map(lambda s: jax.device_put(jax.numpy.zeros(s.shape, s.dtype), s.sharding), batch)
    jax.block_until_ready(compiled(state, zeros))
    mark()
  return dict(zip(PARTS, (after - before for before, after in zip(marks, marks[1:], strict=False)), strict=False))


def processes(config):
  """The same in two processes, one after the other, that share a fresh cache."""
  with tempfile.TemporaryDirectory() as cache:
    environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': cache, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-m', 'experiments.bench.compile', '--child', str(config)]
    runs = [subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True) for _ in range(2)]
  return [json.loads(run.stdout.splitlines()[-1]) for run in runs]


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('presets', nargs='*')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.child:
    print(json.dumps(first_step(options.child)))
    return
  names = options.presets or sorted(p.stem for p in CONFIGS.glob('*.py') if p.stem != '__init__')
  print(f'{"preset":20}{"first":>8}{"second":>8}{"ratio":>7}   of the second: {", ".join(PARTS)}')
  for name in names:
    first, second = processes(CONFIGS / f'{name}.py')
    ratio = sum(second.values()) / sum(first.values())
    parts = ', '.join(f'{second[part]:.1f}' for part in PARTS if part in second)
    note = '' if 'step' in second else ' (not run)'
    print(f'{name:20}{sum(first.values()):8.1f}{sum(second.values()):8.1f}{ratio:7.2f}   {parts}{note}', flush=True)


if __name__ == '__main__':
  main()
