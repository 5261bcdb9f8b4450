"""diffjax search."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands.draw import Trained, network
from diffjax.errors import InputError

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Search for a solver of few evaluations for a trained run and write it to a solver file.

Candidates are judged by their distance to a solution of 200 evaluations from the same starts, with the weights and
guidance with which the run samples. The error is told before (the config's solver and grid at --nfe steps) and after,
on starts that the search has not seen. Then: diffjax sample --workdir=DIR --solver=FILE."""

METHODS = dict(
  evolution='times, order, form and corrector of every step; the budget counts candidates',
  boss="the times whose Euler steps cost least, by dynamic programming, under the config's solver",
  gradient="every coefficient and time, from the config's solver or a better published one; the budget counts steps",
)
BUDGET = dict(evolution=500, boss=1, gradient=300)
KNOTS = 100


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--nfe', type=int, required=True, help='evaluations of the network that the solver may make')
  told = '; '.join(f'{name}: {text}' for name, text in METHODS.items())
  parser.add_argument('--method', default='evolution', help=f'evolution by default. {told}')
  parser.add_argument('--starts', type=int, default=256, help='to search on, and as many to judge on; 256 by default')
  parser.add_argument('--budget', type=int, help='evolution 500 candidates, gradient 300 steps')
  parser.add_argument('--batch', type=int, default=64, help='starts of one descent step')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--step', type=int, help='the checkpoint to take; the newest by default')
  parser.add_argument('--out', metavar='FILE', help='WORKDIR/solvers/METHOD-NFE.npz by default')
  parser.add_argument('--replace', action='store_true', help='write over a file that is there')


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Search, tell the errors and write the file."""
  out = _checked(options)
  began = time.perf_counter()
  trained = network(options.workdir, [*overrides, f'--config.sampling.steps={options.nfe}'], options.step)
  what, process = trained.what, trained.what.process
  from diffjax import finite, search
  from diffjax.solvers import Table
  from diffjax.solvers.solver_file import write

  if what.config.sampling.teleport:
    raise InputError(f'config.sampling.teleport: got {what.config.sampling.teleport:g}; allowed: 0, a search goes the '
                     'whole way')  # fmt: skip
  before = what.solver(options.workdir)
  if not isinstance(before, Table) or before.stochastic:
    raise InputError(f'config.sampling.solver: got {what.config.sampling.solver.name}; allowed: a deterministic table '
                     'to compare with')  # fmt: skip
  trained = _begun(trained, before)
  what, denoise = trained.what, trained.denoise
  seen, held = (_target(trained, before, options, part) for part in (0, 1))
  told = f'{options.method}, {options.nfe} evaluations, {options.starts} starts, seed {options.seed}'
  found = dict(evolution=_evolved, boss=_bellman, gradient=_descended)[options.method](what, before, seen, options)
  chunk = _chunk(what, options)
  errors = [
    float(search.errors(denoise, search.population([table]), held.x, held.reference, held.cond, chunk=chunk)[0])
    for table in (before, found)
  ]
  finite.check('search', finite.lost(errors[1:]), 'solvers found')
  c = what.config.sampling
  write(out, found, process, f'{told}, scale {c.guidance_scale:g}, of {options.workdir}')
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
  for field in ('nfe', 'starts', 'budget', 'batch'):
    if getattr(options, field) < 1:
      raise InputError(f'{field}: got {getattr(options, field)}; allowed: a whole number of at least 1')
  if options.nfe > KNOTS:
    raise InputError(f'nfe: got {options.nfe}; allowed: at most {KNOTS}, the knots of the search')
  out = options.out or f'{options.workdir}/solvers/{options.method}-{options.nfe}.npz'
  if epath.Path(out).exists() and not options.replace:
    raise InputError(f'out: got {out}, which is there; allowed: another path, or --replace')
  return out


def _begun(trained: Trained, before: Any) -> Trained:
  """The run on a process that ends where the config's grid begins, as do all grids on it."""
  import dataclasses

  import jax.numpy as jnp

  process = trained.what.process.replace(t_max=jnp.asarray(before.rows.t[0], float))
  what = dataclasses.replace(trained.what, process=process)
  return trained._replace(what=what, denoise=what.guided(what.denoiser(trained.params)))


def _target(trained: Trained, before: Any, options: argparse.Namespace, part: int) -> Any:
  """The starts of this part of the seed, labels in turn, and where they should end."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from diffjax import finite, search
  from diffjax.runs.generate import starts
  from diffjax.train import sharding

  what, denoise, mesh, *_ = trained
  first, size = part * options.starts, what.config.sampling.batch
  x, _ = starts(denoise, before, what.shape, options.seed, first, options.starts, trained.data)
  cond = jnp.asarray(np.arange(options.starts) % what.classes, jnp.int32) if what.classes else None
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


def _chunk(what: Any, options: argparse.Namespace) -> int:
  """Candidates side by side: as many as fill a batch of sampling, any number of small points."""
  import math

  return max(1, min(64, what.config.sampling.batch * 64 // (options.starts * math.prod(what.shape))))


def _evolved(what: Any, before: Any, seen: Any, options: argparse.Namespace) -> Any:
  """Evolution over `usf`, on knots evenly in lam and 0 after them."""
  from diffjax import search
  from diffjax.solvers import grids

  size = min(50, options.budget)
  space = search.Space(what.process, options.nfe, grids.uniform_lam(what.process, KNOTS))
  score = lambda tables: search.errors(  # noqa: E731
    seen.denoise, tables, seen.x, seen.reference, seen.cond, chunk=_chunk(what, options)
  )
  found = search.evolve(space, score, size, max(1, options.budget // size), seed=options.seed, progress=_progress)
  first = float(score(search.population([before]))[0])  # the config's own table need not lie on the knots
  return found.table if found.error <= first else before


def _bellman(what: Any, before: Any, seen: Any, options: argparse.Namespace) -> Any:
  """The config's solver on the times of `boss`, among knots evenly in t."""
  from diffjax import search
  from diffjax.runs import experiment
  from diffjax.runs.config import override

  few = min(128, options.starts)
  cond = None if seen.cond is None else seen.cond[:few]
  ts = search.boss(seen.denoise, seen.x[:few], options.nfe, KNOTS, cond)
  times = tuple(float(t) for t in ts)
  config = override(what.config, [f'--config.sampling.grid={dict(name="array", times=times)!r}'])
  return experiment.build(config).solver(options.workdir)


def _descended(what: Any, before: Any, seen: Any, options: argparse.Namespace) -> Any:
  """Gradient descent from the config's solver, or from a published one on a published grid if that is better."""
  from diffjax import search, solvers
  from diffjax.runs.spread import overall
  from diffjax.solvers import grids

  n, std = options.nfe, overall(what.spread(options.workdir))
  told: dict[str, Any] = {} if std is None else dict(data_std=std)
  several = [before, solvers.recommended(what.process, n, **told)]
  if n >= 4:  # the better start on a smooth network
    ts = grids.noise_share(what.process, n, **told)
    several.append(solvers.trig_adams(what.process, ts, order=4, final_order=2, **told))
  for grid in (grids.quadratic, grids.uniform_lam, grids.karras):
    ts = grid(what.process, n)
    several += [search.usf(what.process, ts, search.BASELINES[name](n)) for name in ('dpmpp_2m', 'unipc')]
  return search.descend([seen], several, options.budget, batch=options.batch, progress=_progress)


def _progress(i: int, error: float) -> None:
  import sys

  if sys.stderr.isatty():
    print(f'\r{i + 1}: error {error:.4f}', end='', file=sys.stderr, flush=True)
