"""diffjax evaluate."""

import argparse
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands.draw import Trained, draw, drawing, is_main_process, picture, sampler, titles, write_npz
from diffjax.commands.start import add_distributed_arguments, barrier
from diffjax.errors import InputError

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Sample with the held-out labels and hold the samples against the held-out data.

The held-out data are config.evaluation.n examples spread evenly over the split, classes in proportion, the same for
every run. Leaves in WORKDIR: samples.npz (what the figures are computed from), report.json (every figure with its floor
and interval), samples.png and trajectory.png."""


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--solver', metavar='FILE', help="a solver that diffjax search wrote; the config's by default")
  parser.add_argument(
    '--likelihood', nargs='?', const='rademacher', metavar='DIVERGENCE',
    help='bits per dimension of the held-out data by the ODE of the unguided denoiser, its divergence by one probe '
    '(rademacher unless given, gaussian, hutchpp) or exact',
  )  # fmt: skip
  parser.add_argument(
    '--classify', nargs='?', const=64, type=int, metavar='DRAWS',
    help='the share of held-out data whose class the unguided denoiser tells (Diffusion Classifier), by so many pairs '
    'of a time and a noise that the classes share (64); a quarter of them keep half the classes',
  )  # fmt: skip
  add_distributed_arguments(parser)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Sample with the held-out labels; figures, report and pictures."""
  import jax

  from diffjax.runs import examples, record

  record.read_config(options.workdir)
  began = time.perf_counter()
  trained = sampler(options, overrides)
  experiment = trained.experiment
  c = experiment.config
  source = examples.dataset(experiment, c.evaluation.split)  # by all processes, which wait for each other
  batch = examples.held_out(experiment, source, c.evaluation.n)
  held, known = batch['x'], batch.get('cond')
  n, cond = len(jax.tree.leaves(held)[0]), examples.conditions(experiment, known, batch)
  seen = examples.reader(experiment, 'train')
  judged = _likelihood(options, trained, source, batch) if options.likelihood else {}
  judged |= _classified(options, trained, batch) if options.classify is not None else {}
  first = min(n, c.sampling.batch)
  draw(trained, first, jax.tree.map(lambda leaf: leaf[:first], cond), c.seed)  # compiles
  ready = time.perf_counter()
  drawn = draw(trained, n, cond, c.seed)
  sampled = time.perf_counter()
  if is_main_process():
    write_npz(f'{options.workdir}/samples.npz', drawn, known)
    seconds = dict(compile=ready - began, sample=sampled - ready)
    _report(options, trained, drawn, batch, (source, seen), seconds, judged)
  paths = _paths(trained)
  if is_main_process():
    _pictures(options.workdir, trained, drawn, known, held, paths)
  barrier('evaluated')


def _report(
  options: argparse.Namespace, trained: Trained, drawn: Any, batch: Any, sets: tuple, seconds: dict, judged: dict
) -> None:  # fmt: skip
  """The figures in report.json, before any picture is drawn."""
  from etils import epath

  from diffjax import metrics
  from diffjax.train import log

  began, experiment, (held, seen) = time.perf_counter(), trained.experiment, sets
  bar = lambda name, items: log.bar(items=items, desc=name, leave=False, delay=1)  # noqa: E731
  figures = metrics.report(
    held.kind,
    drawn,
    batch,
    seen,
    name=experiment.config.data.name,
    law=held.law,
    families=experiment.method.figures,
    progress=bar,
  )
  seconds = seconds | dict(evaluate=time.perf_counter() - began)
  report = {**figures, **judged, **_circumstances(options.workdir, trained, figures['m'], seconds)}
  if options.solver:
    report |= dict(solver=dict(file=options.solver), grid=None, teleport=0.0)
  (epath.Path(options.workdir) / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
  _tell(options.workdir, report, metrics.lines(figures))


def _likelihood(options: argparse.Namespace, trained: Trained, source: Any, batch: Any) -> dict[str, Any]:
  """Bits per dimension of the held-out data, by all processes."""
  from functools import partial

  import jax
  from jax.experimental import multihost_utils

  from diffjax import keys, likelihood
  from diffjax.train import log, sharding

  experiment, mesh = trained.experiment, trained.mesh
  if isinstance(experiment.shape, dict):
    raise InputError(f'likelihood: got data of modalities {", ".join(experiment.shape)}; allowed: data of one shape')
  c, data = experiment.config, experiment.spread(options.workdir)
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  many = -(-min(c.sampling.batch, len(batch['x'])) // parts) * parts
  found = likelihood.bits_per_dim(
    experiment.denoiser(trained.roles),
    batch['x'],
    keys.seeded(c.seed),
    batch.get('cond'),
    levels=source.levels,
    divergence=options.likelihood,
    data_mean=0.0 if data is None else data.mean,
    data_std=1.0 if data is None else float(data.std),
    batch=many,
    place=lambda leaf: jax.device_put(leaf, sharding.batch_sharding(mesh)),
    fetch=partial(multihost_utils.process_allgather, tiled=True),
    progress=lambda batches: log.bar(is_main_process(), batches, desc='likelihood', unit='batch'),
  )
  return dict(likelihood=dict(found._asdict(), divergence=options.likelihood, levels=source.levels))


def _classified(options: argparse.Namespace, trained: Trained, batch: Any) -> dict[str, Any]:
  """The accuracy of the unguided denoiser as a classifier of the held-out data, by all processes."""
  from functools import partial

  import jax
  from jax.experimental import multihost_utils

  from diffjax import keys, represent
  from diffjax.train import sharding

  experiment, mesh, draws = trained.experiment, trained.mesh, options.classify
  if 'cond' not in batch or isinstance(experiment.shape, dict):
    raise InputError('classify: got a run without classes, or of several modalities; allowed: labelled data of one '
                     'shape')  # fmt: skip
  classes, c = experiment.classes, experiment.config
  early = ((max(draws // 4, 1), -(-classes // 2)),) if draws > 1 and classes > 2 else ()
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  found = represent.accuracy(
    experiment.denoiser(trained.roles),
    batch['x'],
    batch['cond'],
    keys.seeded(c.seed),
    classes,
    stages=(*early, (draws, 1)),
    batch=-(-min(c.sampling.batch, len(batch['x'])) // parts) * parts,
    place=lambda leaf: jax.device_put(leaf, sharding.batch_sharding(mesh)),
    fetch=partial(multihost_utils.process_allgather, tiled=True),
  )
  return dict(classification=dict(found._asdict(), draws=draws))


def _paths(trained: Trained) -> Any:
  """The ways of a few images from noise to data, see `trajectories`; None for points."""
  import numpy as np

  from diffjax import finite
  from diffjax.runs.generate import trajectories

  experiment = trained.experiment
  if not isinstance(experiment.shape, tuple) or len(experiment.shape) != 3 or not hasattr(trained.generator, 'path'):
    return None
  few = np.arange(min(4, experiment.classes)) if experiment.classes else None
  n = 4 if few is None else len(few)
  x, x0 = trajectories(trained.generator, few, n, experiment.config.seed, trained.mesh)
  for name, points in (('trajectory', x), ('trajectory of x0', x0)):
    finite.check(name, finite.lost(points), 'points')
  return x, x0


def _pictures(workdir: str, trained: Trained, drawn: Any, known: Any, held: Any, paths: Any) -> None:
  """samples.png, of images a row a class, and for images trajectory.png."""
  import numpy as np

  from diffjax.runs import plots

  if paths is None:
    drawing('samples.png', picture, f'{workdir}/samples.png', drawn, None, held=held)
    return
  order = np.arange(min(100, len(drawn))) if known is None else _by_class(known)
  shown = None if known is None else titles(trained.experiment, known[order])
  drawing('samples.png', picture, f'{workdir}/samples.png', drawn[order], shown)
  x, x0 = paths
  kept = np.unique(np.linspace(0, len(x) - 1, 11).round().astype(int))
  times = np.append(trained.generator.times, 0.0)
  drawing('trajectory.png', plots.trajectory, f'{workdir}/trajectory.png', x[kept], x0[kept], times[kept])


def _circumstances(workdir: str, trained: Trained, n: int, seconds: dict[str, float]) -> dict:
  """What the figures were measured with: solver, cost, speed, time spent and versions."""
  import importlib.metadata

  import jax
  import numpy as np
  from etils import epath

  from diffjax.runs.sampling import guidance_scale

  path = epath.Path(workdir) / 'timings.json'
  spent = json.loads(path.read_text()) if path.exists() else {}
  install = os.environ.get('DIFFJAX_INSTALL_SECONDS')
  experiment, generator = trained.experiment, trained.generator
  c = experiment.config
  packages = ('diffjax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy')
  data = experiment.spread(workdir)
  return dict(
    nfe=generator.nfe,
    cost=generator.cost,
    scale=guidance_scale(c.sampling),
    seed=c.seed,
    data_mean=jax.tree.map(lambda part: float(np.mean(part.mean)), data, is_leaf=lambda part: hasattr(part, 'mean')),
    data_std=jax.tree.map(lambda part: float(part.std), data, is_leaf=lambda part: hasattr(part, 'std')),
    names=c.data.get('names'),
    solver=c.sampling.solver.to_dict(),
    grid=c.sampling.grid.to_dict(),
    teleport=c.sampling.teleport,
    train_steps=c.train.steps,
    train_steps_per_s=spent.get('steps_per_s'),
    sample_images_per_s=n / seconds['sample'],
    wall_s=dict(
      install=float(install) if install else None,
      data=spent.get('data'),
      compile=spent.get('compile', 0.0) + seconds['compile'],
      train=spent.get('train'),
      sample=seconds['sample'],
      evaluate=seconds['evaluate'],
    ),
    device=f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    versions={name: importlib.metadata.version(name) for name in packages},
  )


def _by_class(labels: Any, each: int = 10) -> Any:
  """Places of the first few samples of each of the first ten classes that there are: a row a class."""
  import numpy as np

  return np.concatenate([np.flatnonzero(labels == k)[:each] for k in np.unique(labels)[:10]])


def _tell(workdir: str, report: dict[str, Any], figures: Any) -> None:
  """The figures that have an interval as a table."""
  print(f'{"":26}{"value":>9}  {"floor":>9}  95% interval')
  for name, value, floor, (low, high) in figures:
    print(f'{name:26}{value:9.4f}  {"" if floor is None else f"{floor:.4f}":>9}  {low:.4f} to {high:.4f}')
  if 'likelihood' in report:
    told = report['likelihood']
    print(f'{told["bits"]:.4f} +- {told["se"]:.4f} bits a dimension of {told["n"]} examples by {told["divergence"]}, '
          f'{told["nfe"]:.0f} evaluations each, at most {told["nfe_max"]}')  # fmt: skip
  if 'classification' in report:
    told = report['classification']
    print(f'{told["accuracy"]:.4f} +- {told["se"]:.4f} of {told["n"]} examples told their class, {told["nfe"]} '
          'evaluations each')  # fmt: skip
  print(f'{report["n"]} samples, {report["nfe"]} evaluations, scale {report["scale"]:g}, '
        f'{report["sample_images_per_s"]:.0f} images a second: {workdir}/report.json')  # fmt: skip
