"""diffjax train."""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands import plan
from diffjax.commands.start import add_distributed_arguments, mesh_of, start
from diffjax.errors import InputError
from diffjax.runs.config import ConfigError, refused

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Train as a config says, from the start or from the last checkpoint of the directory.

Leaves in WORKDIR: config.json (resolved), metrics.csv, checkpoints/, loss.png, statistics/data.npz (the data's mean and
deviation, for sampling), TensorBoard events where tensorboardX is installed. SIGTERM saves and ends with status 0; the
same command goes on from there, bit for bit.

With --config.train.steps raised, a run of a constant or inverse_sqrt schedule goes on as if it had been so long from
its start. One of a cosine does so only under another --config.train.optimiser.schedule, at the learning_rate stated
with it.

With --dry_run it needs neither data nor accelerator and writes nothing: it tells how a mesh of any size would share the
parameters, and the memory and FLOPs a step needs of each device."""


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--config', required=True, metavar='FILE', help='a Python file with get_config()')
  add_distributed_arguments(parser)
  parser.add_argument(
    '--dry_run', nargs='?', const='compiled', choices=('compiled', 'shapes'),
    help='tell shardings, memory and FLOPs of a step on any mesh, and write nothing; shapes: without compiling it',
  )  # fmt: skip
  parser.add_argument('--devices', type=int, metavar='N', help='of --dry_run: so many, for the axis of mesh that is -1')
  parser.add_argument('--memory', type=float, metavar='GiB', help='of --dry_run: what a device has; status 2 if less')


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Build, claim the directory, train; or tell what that would need."""
  _check(options)
  if options.dry_run:
    plan.run(options, overrides)
    return
  from diffjax.runs import config as configs

  began = time.perf_counter()
  config = configs.override(configs.from_file(options.config), overrides)
  start(config, options.distributed, options.timeout)
  import jax

  from diffjax.runs import directory as runs
  from diffjax.runs import examples, record
  from diffjax.runs.experiment import build
  from diffjax.runs.spread import measure
  from diffjax.train import sharding

  experiment = build(runs.resolved(config))
  c = experiment.config
  mesh = mesh_of(c)
  refused('train.batch', sharding.check_batch, mesh, c.train.batch, c.train.accumulate)
  source = examples.dataset(experiment, 'train')
  free, told = _raised(options.workdir, c, experiment.method.fixed_length)
  c = record.claim(options.workdir, c, source.names, free)
  if told and jax.process_index() == 0:
    print(told)
  source = examples.held(source)
  if jax.process_index() == 0:
    measure(options.workdir, source)
  batches = examples.stream(experiment, source)
  data_s = time.perf_counter() - began
  done = runs.fit(experiment, batches, mesh, options.workdir, config=json.loads(json.dumps(c.to_dict())))
  if jax.process_index() == 0 and done.steps_per_s:
    _timings(options.workdir, done, data_s)
    _plot_losses(options.workdir)
    drawn = experiment.method.generator is not None
    then = f'diffjax evaluate --workdir={options.workdir}' if drawn else f'diffjax.load({options.workdir!r})'
    print(f'trained {c.train.steps} steps, {done.steps_per_s:.1f} a second; next: {then}')


def _check(options: argparse.Namespace) -> None:
  for field in ('devices', 'memory'):
    given = getattr(options, field)
    if given is not None and (not options.dry_run or given <= 0):
      raise InputError(f'{field}: got {given}; allowed: a positive number, with --dry_run')
  if options.workdir is None and not options.dry_run:
    raise InputError('workdir: got none; allowed: a directory for the run, or --dry_run, which writes nothing')


def _raised(workdir: str, config: Any, fixed_length: bool) -> tuple[tuple[str, ...], str]:
  """The keys that may differ from those of the run in `workdir` since `train.steps` is raised, and what that means.

  Raises:
    ConfigError: the rate has been falling towards the end of the shorter run, or the method's course has been laid out
      over it.
  """
  from etils import epath

  from diffjax.runs import record
  from diffjax.train.optimiser import ENDLESS, SHAPE, schedule_of

  if not (epath.Path(workdir) / 'config.json').exists():
    return (), ''
  before, steps = record.read_config(workdir).train, config.train.steps
  if steps <= before.steps:
    return (), ''
  if fixed_length:
    raise ConfigError(f'config.train.steps: got {steps}; allowed: {before.steps}, over which {config.method.name} has '
                      f'laid out its course in {workdir}, or another directory')  # fmt: skip
  told = f'train.steps is raised from {before.steps} to {steps}'
  then, now = schedule_of(before.optimiser), schedule_of(config.train.optimiser)
  if then != now:
    keys = tuple(f'train.optimiser.{key}' for key in ('learning_rate', *SHAPE))
    return ('train.steps', *keys), f'{told}: from here on the rate is {now}, no longer {then}'
  if now in ENDLESS:
    return ('train.steps',), f'{told}: the rate, {now}, goes on'
  raise ConfigError(
    f'config.train.steps: got {steps}; allowed: {before.steps}, the end to which the {then} of the run in {workdir} '
    'takes the rate, or more with the rate from here on stated as --config.train.optimiser.schedule=constant '
    '(or inverse_sqrt) and its learning_rate, or another directory'
  )


def _plot_losses(workdir: str) -> None:
  """loss.png: the loss and the unweighted error by time bin."""
  from diffjax.runs import plots
  from diffjax.train.log import read_csv

  rows = read_csv(f'{workdir}/metrics.csv')
  names = [name for name in rows[0] if name == 'loss' or name.startswith('error_bin')]
  bins = len(names) - 1
  series = {
    'loss' if name == 'loss' else f'error, time bin {int(name[9:]) + 1} of {bins}': [
      float(r[name] or 'nan') for r in rows
    ]
    for name in names
  }
  plots.losses(f'{workdir}/loss.png', [int(row['step']) for row in rows], series)


def _timings(workdir: str, done: Any, data_s: float) -> None:
  """Seconds spent by the run so far, added up over the times it was resumed."""
  from etils import epath

  path = epath.Path(workdir) / 'timings.json'
  before = json.loads(path.read_text()) if path.exists() else {}
  now = dict(data=data_s, **done.seconds)
  spent = {k: before.get(k, 0.0) + v for k, v in now.items()}
  path.write_text(json.dumps(spent | dict(steps_per_s=done.steps_per_s), indent=2) + '\n')
