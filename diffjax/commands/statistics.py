"""diffjax statistics."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands.draw import network
from diffjax.errors import InputError

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Compute what some solvers want to know of a trained network and its data, once, and keep it in WORKDIR/statistics.

linear.npz (DPM-Solver-v3), energies.npz (Analytic-DPM) and gaussian.npz (teleportation), from the training data and
the weights and guidance with which the run samples. Then: diffjax sample --workdir=DIR
--config.sampling.solver.name=dpm_v3, or --config.sampling.teleport=5, which leaps to the first time of the grid with
sigma / alpha <= 5. Files that are there are replaced, and it says so."""

AXES = 1024  # of the Gaussian, at most


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--n', type=int, default=4096, help='noised examples; over again where there are fewer')
  parser.add_argument('--knots', type=int, default=120, help='noise levels, evenly in log(alpha / sigma)')
  parser.add_argument('--scale', type=float, help='the guidance scale; that of the config by default')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--step', type=int, help='the checkpoint to take; the newest by default')


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Estimate the three statistics and write them."""
  from diffjax.keys import check_seed

  check_seed(options.seed)
  for field, least in (('n', 2), ('knots', 2)):
    if getattr(options, field) < least:
      raise InputError(f'{field}: got {getattr(options, field)}; allowed: at least {least}')
  scaled = [] if options.scale is None else [f'--config.sampling.guidance_scale={options.scale}']
  trained = network(options.workdir, [*overrides, *scaled], options.step)
  experiment, denoise, mesh = trained.experiment, trained.denoise, trained.mesh
  import jax

  from diffjax import statistics
  from diffjax.runs.sampling import guidance_scale
  from diffjax.train import log, sharding

  parts = mesh.shape['data'] * mesh.shape['fsdp']
  n = -(-options.n // parts) * parts
  x0, labels, size = _examples(experiment, n, options.seed)
  place = lambda leaf: jax.device_put(leaf, sharding.batch_sharding(mesh))  # noqa: E731
  batch = -(-experiment.config.sampling.batch // parts) * parts
  task = (denoise, x0, jax.random.key(options.seed), labels)
  asked = dict(knots=options.knots, batch=batch, place=place)
  scale, of = guidance_scale(experiment.config.sampling), f'{n} examples at {options.knots} noise levels'
  print(f'{of}, scale {scale:g}: {_cost(denoise, n, options.knots, x0[0].size)}', flush=True)
  distinct, is_main_process = x0[:size], jax.process_index() == 0

  def bar(name: str) -> Any:
    return lambda batches: log.bar(is_main_process, batches, desc=name, total=-(-n // batch), unit='batch')

  for name, how, make in (
    ('gaussian', f'{len(distinct)} examples', lambda: statistics.gaussian(distinct, min(AXES, x0[0].size))),
    (
      'energies',
      f'{of}, scale {scale:g}',
      lambda: statistics.energies(*task, progress=bar('energies'), **asked).replace(scale=scale),
    ),
    (
      'linear',
      f'{of}, scale {scale:g}',
      lambda: statistics.linear_terms(*task, progress=bar('linear'), **asked).replace(scale=scale),
    ),
  ):
    _write(f'{options.workdir}/statistics/{name}.npz', how, make)


def _cost(denoise: Any, n: int, knots: int, elements: int) -> str:
  """What the estimates take, in forwards and JVPs of the network."""
  from diffjax import guidance, noise_levels
  from diffjax.statistics.closed import knots as knots_of
  from diffjax.statistics.estimate import SMALL

  times = noise_levels.times_of(denoise.process, knots_of(denoise.process, knots))
  once = n * sum(guidance.cost(denoise, t) for t in times)
  jvps = 1 + (elements if elements <= SMALL else 1)
  return f'{once:,} forwards (energies), {2 * once:,} forwards and {jvps * once:,} JVPs (linear)'


def _examples(experiment: Any, n: int, seed: int) -> tuple[Any, Any, int]:
  """N training examples in random order, over again where there are fewer, their labels, and how many differ."""
  import numpy as np

  from diffjax.runs import examples

  source = examples.dataset(experiment, 'train')
  taken = source.take(np.random.default_rng(seed).permutation(source.size)[:n])
  again = np.resize(np.arange(len(taken['x'])), n)
  return taken['x'][again], taken['cond'][again] if experiment.classes else None, len(taken['x'])


def _write(path: str, how: str, make: Any) -> None:
  from etils import epath

  from diffjax import statistics

  began = time.perf_counter()
  replaced = ' (replaces the one that was there)' if epath.Path(path).exists() else ''
  statistics.save(path, make())
  print(f'{path}{replaced}: {how}, {time.perf_counter() - began:.0f} s', flush=True)
