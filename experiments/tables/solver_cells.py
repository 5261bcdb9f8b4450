"""The cells of the solver table: what is measured, on exact targets and on a run's network, and kept."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, noise_levels, schedules, solvers
from diffjax.solvers import Table
from experiments.tables import solver_rows as rows
from experiments.tables import targets

__all__ = ['Cells', 'digits', 'exact']

PROCESSES = {'VP linear': 'vp_linear', 'VP cosine': 'cosine', 'EDM': 'edm', 'rectified flow': 'flow'}
STARTS, CHUNK = 512, 32


class Cells:
  """Measured cells, one JSON line each; those of one place are written at once or not at all."""

  def __init__(self, path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    self.path = path
    text = path.read_text() if path.exists() else ''
    self.lines = [json.loads(line) for line in text.splitlines() if line.endswith('}')]

  def missing(self, laid: dict, **place: Any) -> dict:
    """Those of (solver, grid) -> laid-out solver that are not measured at this place."""
    done = {(line['solver'], line['grid']) for line in self.lines if place.items() <= line.items()}
    return {name: solver for name, solver in laid.items() if name not in done}

  def add(self, lines: list[dict], **place: Any) -> None:
    """Appends cells measured at this place to the file."""
    new = [place | line for line in lines]
    with self.path.open('a') as file:
      file.write(''.join(json.dumps(line) + '\n' for line in new))
    self.lines += new


def exact(out: Path, budgets: tuple[int, ...], names: list[str]) -> list[dict]:
  """The cells of the exact targets, of these rows and of the recommended solver."""
  cells = Cells(out / 'exact.jsonl')
  with jax.enable_x64(True):
    for target_name, target in targets.judged().items():
      d = target.means.shape[1]
      draws = np.asarray(target.sample(keys.per_sample(jax.random.key(2), 2 * STARTS)))
      spread = float(np.sqrt(np.trace(target.covariance())))
      ours = partial(solvers.recommended, data_std=spread / np.sqrt(d), exact=True)
      for process_name, kind in PROCESSES.items():
        process = getattr(schedules, kind)()
        denoise, z = target.denoiser(process), np.random.default_rng(0).standard_normal((STARTS, d))
        x = float(process.schedule(process.t_max)[1]) * z
        place, known = dict(target=target_name, process=process_name), targets.knowledge(target, process)
        left = {
          nfe: cells.missing(rows.configurations(process, nfe, names, known, ours(process, nfe)), **place, nfe=nfe)
          for nfe in budgets
        }
        if not any(left.values()):
          continue
        ends = solution(denoise, x)
        for nfe, laid in left.items():
          lines = []
          headed = {name: solver for name, solver in laid.items() if name[0] != rows.OURS and rows.ROWS[name[0]].headed}
          plain = {name: solver for name, solver in laid.items() if name not in headed}
          for of, part in ((denoise, plain), (target.moments_denoiser(process), headed)):
            for (solver, grid), got in runs(of, part, jnp.asarray(x)):
              done = laid[solver, grid]
              error = None if done.stochastic else float(np.sqrt(np.mean(np.sum((got - ends) ** 2, -1)))) / spread
              distance = sliced(got, draws[:STARTS]) / spread
              lines.append(dict(solver=solver, grid=grid, evaluations=done.nfe, error=error, distance=distance))
          cells.add(lines, **place, nfe=nfe, floor=sliced(draws[:STARTS], draws[STARTS:]) / spread)
          print(f'{target_name}, {process_name}, {nfe} evaluations: {len(lines)} configurations', flush=True)
  return cells.lines


@jax.jit
def _samples(denoise: Any, stacked: Any, x: jax.Array, key: jax.Array, cond: Any = None) -> jax.Array:
  one = lambda solver: solvers.sample(denoise, solver, x, key, cond)  # noqa: E731
  return jax.lax.map(one, stacked)  # one after the other: idle rows of a padded table are then skipped


def runs(denoise: Any, laid: dict, x: jax.Array, cond: Any = None) -> Iterator[tuple[Any, np.ndarray]]:
  """(configuration, samples), at most CHUNK solvers of one structure at a time by one program; tables are padded."""
  sizes = [solver.rows.weights.shape[:2] for solver in laid.values() if isinstance(solver, Table)]
  length, registers = np.max(sizes, 0) if sizes else (0, 0)
  length, registers = max(length, 20 if length <= 20 else 60), max(registers, 8)  # few sizes, few programs
  groups: dict[Any, dict] = {}
  for name, solver in laid.items():
    like = solvers.pad(solver, int(length), int(registers)) if isinstance(solver, Table) else solver
    leaves, treedef = jax.tree.flatten(like)
    groups.setdefault((treedef, *map(np.shape, leaves)), {})[name] = like
  for group in groups.values():
    names, size = list(group), min(CHUNK, len(group))
    for first in range(0, len(names), size):
      part = [names[min(i, len(names) - 1)] for i in range(first, first + size)]
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(group[name] for name in part))
      got = np.asarray(_samples(denoise, stacked, x, keys.per_sample(jax.random.key(1), len(x)), cond))
      yield from dict(zip(part, got, strict=True)).items()


def sliced(a: np.ndarray, b: np.ndarray) -> float:
  """Sliced Wasserstein-1 between two sets of one size: mean over 64 directions, the axes' own in one dimension."""
  a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
  directions = np.random.default_rng(0).standard_normal((a.shape[1], 64 if a.shape[1] > 1 else 1))
  directions /= np.linalg.norm(directions, axis=0)
  return float(np.mean(np.abs(np.sort(a @ directions, 0) - np.sort(b @ directions, 0))))


def solution(denoise: Any, x: np.ndarray, steps: int = 400) -> np.ndarray:
  """Where the probability-flow ODE takes x: classical RK4 in sigma / alpha, on steps even in lam down to lam = 10."""
  process = denoise.process
  t_max = float(process.t_max)
  first = t_max if np.isfinite(noise_levels.at(process, [t_max])[2][0]) else t_max * (1 - 1e-6)
  low = noise_levels.at(process, [first])[2][0]
  ts = np.array(noise_levels.times_of(process, np.linspace(low, 10.0, steps + 1)))
  ts = np.concatenate([[t_max], ts[1:] if first == t_max else ts, [0.0]])
  return np.asarray(solvers.sample(denoise, solvers.deis_rhork(process, ts, tableau='rk4'), x))


def digits(out: Path, workdir: str, budgets: tuple[int, ...], names: list[str], n: int = 128) -> list[dict]:
  """The cells of a run's network: distance to its own solution, Frechet and sliced Wasserstein to held-out images."""
  from diffjax.methods import solved
  from diffjax.metrics import protocol
  from diffjax.metrics.frechet import frechet as frechet_distance
  from diffjax.runs import directory, examples, record
  from diffjax.runs.experiment import build
  from diffjax.runs.generate import key_batch
  from diffjax.runs.spread import overall
  from diffjax.train.sharding import make_mesh

  experiment = build(record.read_config(workdir))
  state = directory.restored(experiment, workdir, make_mesh(1, 1, 1))
  roles = directory.weights(experiment, state)
  denoise = experiment.guided(experiment.denoiser(roles), roles)
  process = experiment.process
  images, labels = examples.arrays(experiment, 'test')
  n = min(n, len(images))
  data = experiment.spread(workdir)
  ours = lambda nfe: solvers.recommended(process, nfe, overall(data) or 0.5)  # noqa: E731
  x, _ = solved(denoise, ours(200), experiment.shape, data).start(key_batch(0, np.arange(n)))
  cond = None if labels is None else jnp.asarray(labels[:n])
  cells = Cells(out / 'digits.jsonl')
  ends = np.asarray(solvers.sample(denoise, ours(200), x, None, cond))
  train, _ = examples.arrays(experiment, 'train')
  features = protocol.features_for(experiment.config.data.name, train)[0]
  spread = float(np.sqrt(np.mean(np.sum(np.square(ends - ends.mean(0)), (1, 2, 3)))))
  for nfe in budgets:
    laid = rows.configurations(process, nfe, names, ours=ours(nfe))
    for (name, grid), solver in cells.missing(laid, nfe=nfe).items():
      if isinstance(solver, Table):  # one program
        size = max(len(solver.rows.t), 20 if nfe <= 20 else 60), max(8, len(solver.registers))
        padded = solvers.pad(solver, *size)
      else:
        padded = solver
      got = np.asarray(solvers.sample(denoise, padded, x, jax.random.key(1), cond))
      error = None if solver.stochastic else float(np.sqrt(np.mean(np.sum((got - ends) ** 2, (1, 2, 3))))) / spread
      frechet = float(frechet_distance(features(images[:n]), features(got)))
      line = dict(evaluations=solver.nfe, error=error, frechet=frechet, distance=sliced(got, images[:n]))
      cells.add([line], nfe=nfe, grid=grid, solver=name)
      print(f'{nfe} evaluations, {name} on {grid}: {line}')
  return cells.lines
