"""diffjax profile."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands.start import mesh_of, start
from diffjax.errors import InputError
from diffjax.runs.config import refused

__all__ = ['TEXT', 'arguments', 'run', 'tell_operations']

TEXT = """\
Time some steps of a run: where the host's time goes, and the operations of the step that take longest.

Starts from fresh parameters and leaves the run's checkpoints and log as they are. Leaves a trace in WORKDIR/profile,
which TensorBoard's profile plugin and xprof show."""

SHOWN = 15


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--config', metavar='FILE', help="a Python file with get_config(); the run's config by default")
  parser.add_argument('--steps', type=int, default=10, help='steps to time after the first, which compiles')


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Train a few steps beside the run, under the profiler, and tell what took the time."""
  from diffjax.runs import config as configs
  from diffjax.runs import directory as runs
  from diffjax.runs import examples, record

  if options.steps < 3:
    raise InputError(f'steps: got {options.steps}; allowed: at least 3')
  config = configs.from_file(options.config) if options.config else record.read_config(options.workdir)
  config = configs.override(config, overrides)
  from diffjax.train import compiler

  compiler.named_operations()
  start(config)
  from etils import epath

  from diffjax.runs.experiment import build
  from diffjax.train import sharding, trace

  experiment = build(config)
  mesh = mesh_of(experiment.config)
  refused('train.batch', sharding.check_batch, mesh, config.train.batch, config.train.accumulate)
  batches = examples.stream(experiment, examples.dataset(experiment, 'train'))
  kept = epath.Path(options.workdir) / 'profile'
  scratch = kept / 'run'
  try:
    # one step that compiles and `steps` more; a line of the log each, and one checkpoint at the end
    done = runs.fit(
      experiment, batches, mesh, scratch, steps=1 + options.steps, log_every=1, save_every=2 + options.steps,
      profile=(1, 1 + options.steps), progress=False,
    )  # fmt: skip
    seconds = done.seconds | dict(save=_checkpoint(done.state, scratch / 'again'))
    session = next((scratch / 'profile' / 'plugins' / 'profile').iterdir())
    target = kept / 'plugins' / 'profile' / session.name
    target.parent.mkdir(parents=True, exist_ok=True)
    session.rename(target)
  finally:
    if scratch.exists():
      scratch.rmtree()
  _tell_seconds(seconds, options.steps, config.train)
  known = trace.sources(runs.traced_step(experiment, mesh).lower().compile().as_text())
  for file in target.glob('*.xplane.pb'):
    tell_operations(trace.operations(file), known, options.steps)
  print(f'trace: {target}')


def _checkpoint(state: Any, path: Any) -> float:
  """Seconds of a checkpoint after the first of the process, which also imports and compiles."""
  from diffjax.train.checkpoint import Checkpoints

  saver = Checkpoints(path, 1)
  began = time.perf_counter()
  saver.save(state, 0)
  saver.wait()
  took = time.perf_counter() - began
  saver.close()
  return took


def _tell_seconds(seconds: dict[str, float], steps: int, config: Any) -> None:
  """The host's wall time by what it went to, and what that comes to for each step of the run."""
  step = seconds['train'] - seconds['wait'] - seconds['log']
  rows = (
    ('waiting for data', seconds['wait'], steps),
    ('dispatching steps, waiting for them', step, steps),
    (f'logging: {steps} lines; one in {config.log_every} steps of the run', seconds['log'], steps * config.log_every),
    (f'a checkpoint, waited for; one in {config.save_every} steps of the run', seconds['save'], config.save_every),
  )
  total = seconds['train'] + seconds['save']
  print(f'compiled in {seconds["compile"]:.1f} s\n{f"{steps} steps":60}{"seconds":>9}{"ms a step of the run":>22}')
  for name, spent, shared in rows:
    print(f'  {name:58}{spent:9.3f}{1000 * spent / shared:22.2f}')
  print(f'  {"sum":58}{total:9.3f}{1000 * sum(spent / shared for _, spent, shared in rows):22.2f}')


def tell_operations(found: Sequence[Any], known: dict[str, str], steps: int, shown: int = SHOWN) -> None:
  """What took longest, equal layers together; what runs on several threads or devices counts on each."""
  from diffjax.train import trace

  total = sum(operation.seconds for operation in found)
  print(f'\n{"operations, on all devices":32}{"ms a step":>10}{"share":>7}{"number":>8}  of the program')
  for place in trace.places(found, known)[:shown]:
    print(f'  {place.name[:29]:30}{1000 * place.seconds / steps:10.3f}{place.seconds / total:7.1%}{place.count:8}'
          f'  {place.source[-70:]}')  # fmt: skip
