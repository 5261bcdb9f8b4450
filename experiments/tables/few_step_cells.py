"""The cells of the few-step table: students and their teacher on the ring and on digits, measured and kept."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, solvers
from diffjax.errors import InputError
from diffjax.metrics.frechet import frechet
from diffjax.metrics.neighbours import neighbours
from diffjax.runs.config import from_file
from experiments import ring as bench
from experiments.bench.few_step import batch_of, cost, given_of
from experiments.tables import few_step_rows as rows
from experiments.tables.solver_cells import Cells

__all__ = ['TEACHER', 'digits', 'exact']

TEACHER = 'teacher'
NEAR = 2000  # points among which neighbours are sought
BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 50)


def exact(out: Path, paths: dict[str, Path], steps: Sequence[int], train_steps: int, seeds: Sequence[int],
          n: int = 20000, batch: int = 512, log: Callable[..., None] = print) -> list[dict]:  # fmt: skip
  """The cells on the ring, of students of these configs and of the closed form; samples in OUT/exact/NAME.npy."""
  cells = Cells(out / 'exact.jsonl')
  (out / 'exact').mkdir(exist_ok=True)
  for kind in ('cosine', 'edm', 'flow'):
    _teacher(cells, kind, n, log)
  for name, path in paths.items():
    for seed in seeds:
      trained: dict[str, Any] = {}
      for k in steps:
        place = dict(method=name, steps=k, seed=seed, trained=train_steps)
        if any(place.items() <= line.items() for line in cells.lines):
          continue
        began = time.perf_counter()
        try:
          line, x = _student(path, place, trained, n, batch)
        except Exception as error:  # a method that does not fit the ring is a line of the report, not the end of it
          line, x = dict(refused=f'{type(error).__name__}: {error}'), None
        if x is not None and k == min(steps):
          np.save(out / 'exact' / f'{name}.npy', x[:NEAR])
        cells.add([line | dict(seconds=time.perf_counter() - began)], **place)
        log(f'{name}, {k} steps, seed {seed}: {_told(line)}', flush=True)
  return cells.lines


def _student(path: Path, place: dict[str, Any], trained: dict, n: int, batch: int) -> tuple[dict[str, Any], np.ndarray]:
  """The figures of a student at a number of steps, and its samples; one is trained unless one of its kind was."""
  total, k, seed = place['trained'], place['steps'], place['seed']
  made = rows.laid(path, total, k)
  experiment, target, what = made.experiment, made.target, repr(sorted(made.options.items()))
  if what not in trained:
    decay = 0.999 if made.averaged else None
    trained[what] = bench.trained(
      experiment.method, target, total, batch=batch, seed=seed, decay=decay, labelled=made.labelled
    )
  draw = experiment.generator(trained[what])
  cond = None
  if made.labelled:
    cond = target.labels[jax.random.categorical(jax.random.key(3), target.log_weights, shape=(n,))]
  run = jax.jit(lambda draw, key_batch, cond: draw(key_batch, cond))
  x = np.asarray(run(draw, keys.per_sample(jax.random.key(7 + seed), n), cond))
  line = figures(target, x) | dict(nfe=draw.nfe)
  if cond is not None:
    apart = np.linalg.norm(x[:, None] - np.asarray(target.means), axis=-1)
    line['label_consistency'] = float(np.mean(np.asarray(target.labels)[apart.argmin(1)] == np.asarray(cond)))
  return line | _counted(path, total, k, batch), x


def _counted(path: Path, total: int, k: int, batch: int) -> dict[str, float]:
  """Forwards and backwards of a step; nothing where the method takes no such network as its teacher."""
  try:
    made = rows.laid(path, total, k, taught_by_network=True).experiment
  except InputError:
    return {}
  parts, method = made.parts, made.method
  spent = cost(method, parts, given_of(parts, method), batch_of(parts, batch))
  return dict(forwards=spent.forwards, backwards=spent.backwards)


def figures(target: Any, x: np.ndarray) -> dict[str, float]:
  """Those of the bench, Frechet distance and recall of points."""
  data = np.asarray(target.sample(keys.per_sample(jax.random.key(12), len(x))))
  got = {name: float(value) for name, value in bench.figures(target, x)._asdict().items()}
  near = neighbours(data[:NEAR], x[:NEAR])
  return got | dict(frechet=float(frechet(data, x)), recall=near.recall, precision=near.precision)


def _teacher(cells: Cells, kind: str, n: int, log: Callable[..., None]) -> None:
  """The closed form under the library's default solver, at growing cost."""
  process, target = rows.process_of(dict(name=kind)), bench.ring()
  for k in BUDGETS:
    place = dict(method=TEACHER, process=kind, steps=k)
    if any(place.items() <= line.items() for line in cells.lines):
      continue
    solver = solvers.recommended(process, k, bench.STD, exact=True)
    sigma = process.schedule(jnp.asarray(float(np.asarray(solver.rows.t)[0])))[1]
    x = sigma * keys.normal(keys.per_sample(jax.random.key(7), n), jnp.zeros((n, 2)))
    got = np.asarray(solvers.sample(target.denoiser(process), solver, x, keys.per_sample(jax.random.key(8), n)))
    cells.add([figures(target, got) | dict(nfe=solver.nfe)], **place)
  log(f'the teacher on {kind}: {len(BUDGETS)} budgets', flush=True)


def _told(line: dict[str, Any]) -> str:
  return line.get('refused') or f'sw {line["sw"]:.3f}, tv {line["tv"]:.3f}, off {line["off"]:.3f}'


def digits(out: Path, paths: dict[str, Path], steps: Sequence[int], teacher: str, overrides: Sequence[str],
           log: Callable[..., None] = print) -> list[dict]:  # fmt: skip
  """The cells on digits: students trained from the run `teacher` in OUT/digits, and that run at growing cost."""
  from diffjax.cli import main as diffjax

  cells = Cells(out / 'digits.jsonl')
  for k in BUDGETS:
    place = dict(method=TEACHER, steps=k)
    if not any(place.items() <= line.items() for line in cells.lines):
      cells.add([_evaluated(teacher, k, by_default=True)[0]], **place)
      log(f'the teacher, {k} evaluations: {cells.lines[-1]}', flush=True)
  for name, path in paths.items():
    config = from_file(str(path))
    for k in steps:
      place = dict(method=name, steps=k)
      if any(place.items() <= line.items() for line in cells.lines):
        continue
      tied = rows.at_steps(config.method.to_dict(), k)
      workdir = out / 'digits' / name / (str(k) if tied else 'any')
      runs = {'teacher': teacher, 'base': out / 'digits' / 'consistency_distillation' / 'any'}
      options = [f'--config.{field}.run={run}' for field, run in runs.items() if config[field].run]
      options += [f'--config.method.{key}={value}' for key, value in tied.items()]
      began = time.perf_counter()
      if diffjax(['train', f'--config={path}', f'--workdir={workdir}', *options, *overrides]):
        line, x = dict(refused='not trained'), None
      else:
        try:
          line, x = _evaluated(str(workdir), k)
        except InputError as error:
          line, x = dict(refused=str(error)), None
      if x is not None and k == min(steps):
        np.save(workdir.parent / 'samples.npy', x[:100])
      cells.add([line | dict(seconds=time.perf_counter() - began)], **place)
      log(f'{name}, {k} steps: {line}', flush=True)
  return cells.lines


def _evaluated(workdir: str, steps: int, by_default: bool = False) -> tuple[dict[str, Any], np.ndarray]:
  """The figures of a run at a number of steps, or evaluations of the default solver, with the held-out labels.

  Nothing is written there.
  """
  from diffjax import metrics
  from diffjax.commands.draw import draw, sampler
  from diffjax.runs import examples
  from diffjax.runs.spread import overall

  options = argparse.Namespace(workdir=workdir, solver=None, distributed=None, timeout=60)
  trained = sampler(options, [] if by_default else [f'--config.sampling.steps={steps}'])
  experiment = trained.experiment
  if by_default:
    solver = solvers.recommended(experiment.process, steps, overall(experiment.spread(workdir)) or 0.5)
    trained = trained._replace(generator=experiment.generator(trained.roles, workdir, solver))
  source = examples.dataset(experiment, experiment.config.evaluation.split)
  batch = examples.held_out(experiment, source, experiment.config.evaluation.n)
  cond = examples.conditions(experiment, batch.get('cond'), batch)
  x = draw(trained, len(batch['x']), cond, experiment.config.seed)
  seen = examples.reader(experiment, 'train')
  got = metrics.report(
    source.kind, x, batch, seen, name=experiment.config.data.name, law=source.law, families=experiment.method.figures
  )
  kept = ('label_consistency', 'frechet', 'frechet_floor', 'recall', 'recall_floor', 'sliced_wasserstein')
  line = {name: got[name] for name in kept if name in got} | dict(nfe=trained.generator.nfe)
  return line | _kernel(got), x


def _kernel(report: dict[str, Any]) -> dict[str, Any]:
  """The kernel distance with its interval, as the report has them."""
  return {name: value for name, value in report.items() if name.startswith('kernel_distance')}
