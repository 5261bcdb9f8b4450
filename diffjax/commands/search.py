"""diffjax search."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands.draw import Trained, network
from diffjax.errors import InputError

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Search for a solver of few evaluations for a trained run and write it to a solver file; or, with --method=checkpoints,
for a combination of its saved checkpoints, and write that as a run.

Candidates are judged by their distance to a solution of 200 evaluations from the same starts, with the weights and
guidance with which the run samples. The error is told before (the config's solver and grid at --nfe steps) and after,
on starts that the search has not seen. Then: diffjax sample --workdir=DIR --solver=FILE.

Checkpoints are combined so that samples of fixed noise lie nearest the training data (the Frechet distance of features,
of points the sliced Wasserstein distance), drawn as the config says; what is told is measured on held-out data with
other noise. Keep many of them: config.train.max_to_keep. Then: diffjax sample --workdir=OUT."""

METHODS = dict(
  evolution='times, order, form and corrector of every step; the budget counts candidates',
  boss="the times whose Euler steps cost least, by dynamic programming, under the config's solver",
  gradient="every coefficient and time, from the config's solver or a better published one; the budget counts steps",
  checkpoints='the weights of a sum of saved checkpoints, by evolution; the budget counts sums',
)
BUDGET = dict(evolution=500, boss=1, gradient=300, checkpoints=300)
KNOTS = 100


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--nfe', type=int, help='evaluations of the network that the solver may make')
  told = '; '.join(f'{name}: {text}' for name, text in METHODS.items())
  parser.add_argument('--method', default='evolution', help=f'evolution by default. {told}')
  parser.add_argument('--starts', type=int, default=256, help='to search on, and as many to judge on; 256 by default')
  parser.add_argument('--budget', type=int, help='evolution 500 candidates, gradient 300 steps, checkpoints 300 sums')
  parser.add_argument('--batch', type=int, default=64, help='starts of one descent step')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--step', type=int, help='the checkpoint to take; the newest by default')
  parser.add_argument('--since', type=int, default=0, help='the first checkpoint to combine; the oldest by default')
  parser.add_argument('--penalty', type=float, default=0.0, help='of the squares of the weights of checkpoints')
  parser.add_argument('--out', metavar='PATH', help='WORKDIR/solvers/METHOD-NFE.npz by default, WORKDIR/combined')
  parser.add_argument('--replace', action='store_true', help='write over a file that is there')


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Search, tell the errors and write the file."""
  out = _checked(options)
  if options.method == 'checkpoints':
    from diffjax.commands import combine

    return combine.run(options, overrides, out, _progress)
  began = time.perf_counter()
  trained = network(options.workdir, [*overrides, f'--config.sampling.steps={options.nfe}'], options.step)
  experiment, process = trained.experiment, trained.experiment.process
  from diffjax import finite, search
  from diffjax.runs.sampling import guidance_scale
  from diffjax.solvers import Table
  from diffjax.solvers.solver_file import write

  if experiment.config.sampling.teleport:
    raise InputError(f'config.sampling.teleport: got {experiment.config.sampling.teleport:g}; allowed: 0, a '
                     'search goes the whole way')  # fmt: skip
  before = experiment.solver(options.workdir)
  if not isinstance(before, Table) or before.stochastic:
    raise InputError(f'config.sampling.solver: got {experiment.config.sampling.solver.name}; allowed: a '
                     'deterministic table to compare with')  # fmt: skip
  experiment, denoise = _begun(trained, before)
  seen, held = (_target(experiment, denoise, trained.mesh, before, options, part) for part in (0, 1))
  told = f'{options.method}, {options.nfe} evaluations, {options.starts} starts, seed {options.seed}'
  found = dict(evolution=_evolved, boss=_bellman, gradient=_descended)[options.method](
    experiment, before, seen, options
  )
  chunk = _chunk(experiment, options)
  errors = [
    float(search.errors(denoise, search.population([table]), held.x, held.reference, held.cond, chunk=chunk)[0])
    for table in (before, found)
  ]
  finite.check('search', finite.lost(errors[1:]), 'solvers found')
  c = experiment.config.sampling
  write(out, found, process, f'{told}, scale {guidance_scale(c):g}, of {options.workdir}')
  print(f'{c.solver.name} on {c.grid.name}, {before.nfe} evaluations: error {errors[0]:.4f} on held-out starts')
  print(f'{told}: error {errors[1]:.4f}, {time.perf_counter() - began:.0f} s: {out}')


def _checked(options: argparse.Namespace) -> str:
  """Where to write, once every number is one that can be."""
  from etils import epath

  from diffjax.keys import check_seed

  check_seed(options.seed)
  if options.method not in METHODS:
    raise InputError(f'method: got {options.method!r}; allowed: {", ".join(METHODS)}')
  options.budget = BUDGET[options.method] if options.budget is None else options.budget
  solvers = options.method != 'checkpoints'
  if (options.nfe is not None) != solvers:
    allowed = 'evaluations of the network, a whole number' if solvers else 'none, they are those of config.sampling'
    raise InputError(f'nfe: got {options.nfe} with --method={options.method}; allowed: {allowed}')
  for field in ('nfe', 'starts', 'budget', 'batch'):
    if (getattr(options, field) or 0) < 1 and (solvers or field != 'nfe'):
      raise InputError(f'{field}: got {getattr(options, field)}; allowed: a whole number of at least 1')
  if solvers and options.nfe > KNOTS:
    raise InputError(f'nfe: got {options.nfe}; allowed: at most {KNOTS}, the knots of the search')
  default = f'solvers/{options.method}-{options.nfe}.npz' if solvers else 'combined'
  out = options.out or f'{options.workdir}/{default}'
  if epath.Path(out).exists() and not options.replace:
    raise InputError(f'out: got {out}, which is there; allowed: another path, or --replace')
  return out


def _begun(trained: Trained, before: Any) -> tuple[Any, Any]:
  """The experiment and its guided denoiser on a process that ends where the config's grid begins, as do all on it."""
  import dataclasses

  import jax.numpy as jnp

  experiment = trained.experiment
  process = experiment.process.replace(t_max=jnp.asarray(before.rows.t[0], float))
  denoise = experiment.guided(experiment.denoiser(trained.roles).replace(process=process), trained.roles)
  return dataclasses.replace(experiment, parts=dataclasses.replace(experiment.parts, process=process)), denoise


def _target(experiment: Any, denoise: Any, mesh: Any, before: Any, options: argparse.Namespace, part: int) -> Any:
  """The starts of this part of the seed, labels in turn, and where they should end."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from diffjax import finite, search
  from diffjax.methods import solved
  from diffjax.runs.generate import key_batch
  from diffjax.train import sharding

  size = experiment.config.sampling.batch
  ks = part * options.starts + np.arange(options.starts)
  x, _ = solved(denoise, before, experiment.shape, experiment.spread(options.workdir)).start(
    key_batch(options.seed, ks)
  )
  cond = jnp.asarray(np.arange(options.starts) % experiment.classes, jnp.int32) if experiment.classes else None
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if options.starts % parts == 0:
    x, cond = jax.device_put((x, cond), sharding.batch_sharding(mesh))
  ends = [
    search.reference(denoise, x[i : i + size], None if cond is None else cond[i : i + size])
    for i in range(0, options.starts, size)
  ]
  ends = jnp.concatenate(ends)
  finite.check('reference', finite.lost(ends), 'starts')
  return search.Target(denoise, x, ends, cond)


def _chunk(experiment: Any, options: argparse.Namespace) -> int:
  """Candidates side by side: as many as fill a batch of sampling, any number of small points."""
  import math

  return max(1, min(64, experiment.config.sampling.batch * 64 // (options.starts * math.prod(experiment.shape))))


def _evolved(experiment: Any, before: Any, seen: Any, options: argparse.Namespace) -> Any:
  """Evolution over `usf`, on knots evenly in lam and 0 after them."""
  from diffjax import search
  from diffjax.solvers import grids

  size = min(50, options.budget)
  space = search.Space(experiment.process, options.nfe, grids.uniform_lam(experiment.process, KNOTS))
  score = lambda tables: search.errors(  # noqa: E731
    seen.denoise, tables, seen.x, seen.reference, seen.cond, chunk=_chunk(experiment, options)
  )
  found = search.evolve(space, score, size, max(1, options.budget // size), seed=options.seed, progress=_progress)
  first = float(score(search.population([before]))[0])  # the config's own table need not lie on the knots
  return found.table if found.error <= first else before


def _bellman(experiment: Any, before: Any, seen: Any, options: argparse.Namespace) -> Any:
  """The config's solver on the times of `boss`, among knots evenly in t."""
  from diffjax import search
  from diffjax.runs.config import override
  from diffjax.runs.experiment import build

  few = min(128, options.starts)
  cond = None if seen.cond is None else seen.cond[:few]
  ts = search.boss(seen.denoise, seen.x[:few], options.nfe, KNOTS, cond)
  times = tuple(float(t) for t in ts)
  config = override(experiment.config, [f'--config.sampling.grid={dict(name="array", times=times)!r}'])
  return build(config).solver(options.workdir)


def _descended(experiment: Any, before: Any, seen: Any, options: argparse.Namespace) -> Any:
  """Gradient descent from the config's solver, or from a published one on a published grid if that is better."""
  from diffjax import search, solvers
  from diffjax.runs.spread import overall
  from diffjax.solvers import grids

  n, std = options.nfe, overall(experiment.spread(options.workdir))
  told: dict[str, Any] = {} if std is None else dict(data_std=std)
  several = [before, solvers.recommended(experiment.process, n, **told)]
  if n >= 4:  # the better start on a smooth network
    ts = grids.noise_share(experiment.process, n, **told)
    several.append(solvers.trig_adams(experiment.process, ts, order=4, final_order=2, **told))
  for grid in (grids.quadratic, grids.uniform_lam, grids.karras):
    ts = grid(experiment.process, n)
    several += [search.usf(experiment.process, ts, search.BASELINES[name](n)) for name in ('dpmpp_2m', 'unipc')]
  return search.descend([seen], several, options.budget, batch=options.batch, progress=_progress)


def _progress(i: int, error: float) -> None:
  import sys

  if sys.stderr.isatty():
    print(f'\r{i + 1}: error {error:.4f}', end='', file=sys.stderr, flush=True)
