"""diffjax train."""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands import plan
from diffjax.commands.start import hosts, mesh_of, start
from diffjax.errors import InputError
from diffjax.runs.config import refused

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Train as a config says, from the start or from the last checkpoint of the directory.

Leaves in WORKDIR: config.json (resolved), metrics.csv, checkpoints/, loss.png, TensorBoard events where tensorboardX
is installed. SIGTERM saves and ends with status 0; the same command goes on from there, bit for bit.

With --dry_run it needs neither data nor accelerator and writes nothing: it tells how a mesh of any size would share the
parameters, and the memory and FLOPs a step needs of each device."""


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--config', required=True, metavar='FILE', help='a Python file with get_config()')
  hosts(parser)
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
  from diffjax.runs import experiment
  from diffjax.train import loop, sharding

  what = experiment.build(config)
  c = what.config
  mesh = mesh_of(c)
  refused('train.batch', sharding.check_batch, mesh, c.train.batch, c.train.accumulate)
  layout = what.layout(mesh)
  source = runs.dataset(what, 'train')
  runs.claim(options.workdir, c)
  batches = runs.stream(what, source)
  data_s = time.perf_counter() - began
  done = loop.fit(
    what.method, what.init, batches, steps=c.train.steps, key=jax.random.key(c.seed), workdir=options.workdir,
    mesh=mesh, layout=layout, ema=what.averages, accumulate=c.train.accumulate, bins=runs.time_bins(what.process),
    log_every=c.train.log_every, save_every=c.train.save_every, keep=c.train.keep, limit=c.train.max_skipped,
    prefetch=c.loading.prefetch, config=json.loads(json.dumps(c.to_dict())), profile=tuple(c.train.profile) or None,
  )  # fmt: skip
  if jax.process_index() == 0 and done.steps_per_s:
    _timings(options.workdir, done, data_s)
    _plot_losses(options.workdir)
    several = c.loss.name == 'modalities'
    then = f'diffjax.load({options.workdir!r})' if several else f'diffjax evaluate --workdir={options.workdir}'
    print(f'trained {c.train.steps} steps, {done.steps_per_s:.1f} a second; next: {then}')


def _check(options: argparse.Namespace) -> None:
  for field in ('devices', 'memory'):
    given = getattr(options, field)
    if given is not None and (not options.dry_run or given <= 0):
      raise InputError(f'{field}: got {given}; allowed: a positive number, with --dry_run')
  if options.workdir is None and not options.dry_run:
    raise InputError('workdir: got none; allowed: a directory for the run, or --dry_run, which writes nothing')


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
