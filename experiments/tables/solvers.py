"""Every solver on every grid: error against the number of evaluations, as markdown, CSV and curves.

    python -m experiments.tables.solvers --scale=exact
    python -m experiments.tables.solvers --scale=digits --workdir=runs/demo
    python -m experiments.tables.solvers --scale=paper

exact: three targets in closed form x four processes. Error: root mean square distance, over the target's standard
deviation, to where the probability-flow ODE takes the same starts; for all solvers, also the sliced Wasserstein-1
distance to exact draws (floor: between two sets of exact draws). digits: a run's network at the guidance of its config,
distance to its own solution, Frechet and sliced Wasserstein of the samples. paper: what the papers print, and the
checkpoint and statistics files that a run of ours would need.

A cell that was measured is kept in OUT/SCALE.jsonl and not measured again; a run that was stopped goes on.
"""

import argparse
import csv
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, schedules, solvers
from diffjax.process import Process
from diffjax.solvers import Table, grids
from experiments.tables import targets
from experiments.tables.published import published

__all__ = ['BUDGETS', 'SOLVERS', 'main']

BUDGETS = (4, 5, 6, 8, 10, 15, 20, 50)
GRIDS = ('uniform', 'quadratic', 'cosine', 'uniform_lam', 'karras', 'noise_share')
PROCESSES = {'VP linear': 'vp_linear', 'VP cosine': 'cosine', 'EDM': 'edm', 'rectified flow': 'flow'}
OURS = 'recommended'
STARTS, CHUNK = 512, 32


def _options(name: str, **options: Any) -> Callable[[Process, Any], Table]:
  return partial(getattr(solvers, name), **options)


SOLVERS: dict[str, Callable[[Process, Any], Table]] = {
  'DDIM': _options('ddim'),
  'DDPM': _options('ddpm'),
  'DDPM, large variance': _options('ddpm_large'),
  'reverse diffusion': _options('reverse_diffusion'),
  'Euler': _options('euler'),
  'Euler-Maruyama': _options('euler_maruyama'),
  'Heun (EDM)': _options('heun'),
  'midpoint': _options('midpoint'),
  'RK4': _options('rk4'),
  'DPM-Solver-2': _options('dpm_solver', order=2),
  'DPM-Solver-3': _options('dpm_solver', order=3),
  'DPM-Solver-fast': _options('dpm_fast'),
  'DPM-Solver++(2S)': _options('dpmpp_2s'),
  'DPM-Solver++(3S)': _options('dpmpp_3s'),
  'DPM-Solver++(2M)': _options('dpmpp_2m'),
  'DPM-Solver++(3M)': _options('dpmpp_3m'),
  'DPM-Solver++(3M), official': _options('dpmpp_3m_compat'),
  'SDE-DPM-Solver': _options('sde_dpm'),
  'SDE-DPM-Solver++(2M)': _options('sde_dpmpp_2m'),
  'SDE Adams 3': _options('sde_adams', order=3),
  'exponential Adams 3': _options('exponential_adams'),
  'exponential Adams 3, noise': _options('exponential_adams', noise=True),
  'UniPC-2': _options('unipc', order=2),
  'UniPC-2, B1': _options('unipc', order=2, b1=True),
  'UniPC-3': _options('unipc', order=3),
  'DEIS tAB1': _options('deis_tab', order=1),
  'DEIS tAB2': _options('deis_tab', order=2),
  'DEIS tAB3': _options('deis_tab', order=3),
  'DEIS rhoAB3': _options('deis_rhoab', order=3),
  'DEIS rho-Heun': _options('deis_rhork', tableau='heun'),
  'iPNDM': _options('ipndm'),
  'S-PNDM': _options('s_pndm'),
  'F-PNDM': _options('f_pndm'),
  'GHVB 1.8': _options('ghvb', order=1.8),
  'GHVB 2.5': _options('ghvb', order=2.5),
  'DPM-Solver++(2M), heavy ball .8': lambda process, ts: solvers.heavy_ball(solvers.dpmpp_2m(process, ts), 0.8),
}


def laid_out(build: Callable, process: Process, grid: str, nfe: int) -> Table | None:
  """The table with the most steps that needs at most `nfe` evaluations; None where the method cannot have so few."""
  for steps in range(nfe, 0, -1):
    ts = np.array(getattr(grids, grid)(process, steps))
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of float32's rounding: the exact cells run in float64
      try:
        table = build(process, ts)
      except ValueError:  # too few steps for its order, or a form that cannot start from alpha = 0
        continue
    if table.nfe <= nfe:
      return table
  return None


def configurations(process: Process, nfe: int) -> dict[tuple[str, str], Table]:
  """(solver, grid) -> table, for all that can be laid out, and the recommended one."""
  found = {}
  for grid in GRIDS:
    for name, build in SOLVERS.items():
      if (table := laid_out(build, process, grid, nfe)) is not None:
        found[name, grid] = table
  return found | {(OURS, 'its own'): solvers.recommended(process, nfe)}


@jax.jit
def _samples(denoise: Any, tables: Table, x: jax.Array, key: jax.Array, cond: Any = None) -> jax.Array:
  one = lambda table: solvers.sample(denoise, table, x, key, cond)  # noqa: E731
  return jax.lax.map(one, tables)  # one after the other: idle rows of a padded table are then skipped


def runs(denoise: Any, tables: dict, x: jax.Array, cond: Any = None) -> Iterator[tuple[Any, np.ndarray]]:
  """(configuration, samples), CHUNK tables of one size at a time by one program."""
  for noisy in (False, True):
    names = [name for name, table in tables.items() if table.noisy == noisy]
    if not names:
      continue
    rows, registers = np.max([tables[name].rows.weights.shape[:2] for name in tables], 0)
    rows, registers = max(rows, 20 if rows <= 20 else 60), max(registers, 8)  # few sizes, few programs
    for first in range(0, len(names), CHUNK):
      part = [names[min(i, len(names) - 1)] for i in range(first, first + CHUNK)]
      padded = [solvers.pad(tables[name], int(rows), int(registers)) for name in part]
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
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
  first = t_max if np.isfinite(grids.at(process, [t_max])[2][0]) else t_max * (1 - 1e-6)
  low = grids.at(process, [first])[2][0]
  ts = np.array(grids.times_of(process, np.linspace(low, 10.0, steps + 1)))
  ts = np.concatenate([[t_max], ts[1:] if first == t_max else ts, [0.0]])
  return np.asarray(solvers.sample(denoise, solvers.deis_rhork(process, ts, tableau='rk4'), x))


def exact(out: Path, budgets: tuple[int, ...]) -> list[dict]:
  """The cells of the exact targets."""
  cells = Cells(out / 'exact.jsonl')
  with jax.enable_x64(True):
    for target_name, target in targets.judged().items():
      d = target.means.shape[1]
      draws = np.asarray(target.sample(keys.per_sample(jax.random.key(2), 2 * STARTS)))
      spread = float(np.sqrt(np.trace(target.covariance())))
      for process_name, kind in PROCESSES.items():
        process = getattr(schedules, kind)()
        denoise, z = target.denoiser(process), np.random.default_rng(0).standard_normal((STARTS, d))
        x = float(process.schedule(process.t_max)[1]) * z
        place = dict(target=target_name, process=process_name)
        left = {nfe: cells.missing(configurations(process, nfe), **place, nfe=nfe) for nfe in budgets}
        if not any(left.values()):
          continue
        ends = solution(denoise, x)
        for nfe, tables in left.items():
          lines = []
          for (solver, grid), got in runs(denoise, tables, jnp.asarray(x)):
            table = tables[solver, grid]
            error = None if table.noisy else float(np.sqrt(np.mean(np.sum((got - ends) ** 2, -1)))) / spread
            distance = sliced(got, draws[:STARTS]) / spread
            lines.append(dict(solver=solver, grid=grid, evaluations=table.nfe, error=error, distance=distance))
          cells.add(lines, **place, nfe=nfe, floor=sliced(draws[:STARTS], draws[STARTS:]) / spread)
          print(f'{target_name}, {process_name}, {nfe} evaluations: {len(lines)} configurations')
  return cells.lines


class Cells:
  """Measured cells, one JSON line each; those of one place are written at once or not at all."""

  def __init__(self, path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    self.path = path
    text = path.read_text() if path.exists() else ''
    self.lines = [json.loads(line) for line in text.splitlines() if line.endswith('}')]

  def missing(self, tables: dict, **place: Any) -> dict:
    """Those of (solver, grid) -> table that are not measured at this place."""
    done = {(line['solver'], line['grid']) for line in self.lines if place.items() <= line.items()}
    return {name: table for name, table in tables.items() if name not in done}

  def add(self, lines: list[dict], **place: Any) -> None:
    new = [place | line for line in lines]
    with self.path.open('a') as file:
      file.write(''.join(json.dumps(line) + '\n' for line in new))
    self.lines += new


def means(lines: list[dict], figure: str) -> dict[tuple[str, str], dict[int, float]]:
  """(solver, grid) -> nfe -> geometric mean of a figure over targets and processes, where all of them have it."""
  groups: dict[tuple, dict[int, list[float]]] = {}
  for line in lines:
    if line[figure] is not None:
      groups.setdefault((line['solver'], line['grid']), {}).setdefault(line['nfe'], []).append(line[figure])
  most = max((len(v) for nfes in groups.values() for v in nfes.values()), default=0)
  mean = lambda values: float(np.exp(np.mean(np.log(np.minimum(values, 1e6)))))  # noqa: E731
  return {name: {n: mean(v) for n, v in nfes.items() if len(v) == most} for name, nfes in groups.items()}


def overall(row: dict[int, float], budgets: tuple[int, ...]) -> float:
  """Geometric mean over the budgets; infinite where one is missing."""
  return float(np.exp(np.mean([np.log(row[n]) for n in budgets]))) if all(n in row for n in budgets) else float('inf')


def report(lines: list[dict], figure: str, budgets: tuple[int, ...], out: Path, title: str) -> str:
  """Markdown: each solver on its best grid, best first; whether the default beats every published configuration."""
  table = means(lines, figure)
  score = {name: overall(row, budgets) for name, row in table.items()}
  best = {}
  for name in sorted(score, key=lambda name: score[name]):
    best.setdefault(name[0], name)
  text = [f'{title}\n', '| solver | its best grid | ' + ' | '.join(map(str, budgets)) + ' | all |']
  text.append('|' + '---|' * (len(budgets) + 3))
  for name in best.values():
    shown = ' | '.join(f'{table[name][n]:.3g}' if n in table[name] else '' for n in budgets)
    total = f'{score[name]:.3g}' if np.isfinite(score[name]) else ''
    text.append(f'| {name[0]} | {name[1]} | {shown} | {total} |')
  if figure == 'error':
    text.append(_verdict(score))
  with (out / f'{figure}.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['solver', 'grid', *budgets])
    writer.writerows([*name, *(row.get(n, '') for n in budgets)] for name, row in sorted(table.items()))
  _curves(table, list(best.values())[:10], budgets, out / f'{figure}.png', figure)
  return '\n'.join(text)


def _verdict(score: dict[tuple[str, str], float]) -> str:
  """Whether the default has a lower mean than every other configuration."""
  ours = score[OURS, 'its own']
  others = {name: s for name, s in score.items() if name[0] != OURS}
  first = min(others, key=lambda name: others[name])
  verdict = 'lower than' if ours < others[first] else 'NOT lower than'
  return (f'\nDefault {ours:.3g}: {verdict} each of the {len(others)} other configurations, of which {first[0]} on '
          f'{first[1]} is the best with {others[first]:.3g}.')  # fmt: skip


def _curves(table: dict, names: list, budgets: tuple[int, ...], path: Path, figure: str) -> None:
  import matplotlib.pyplot as plt

  figure_, axes = plt.subplots(figsize=(7, 5))
  for name in names:
    known = [n for n in budgets if n in table[name]]
    style = dict(color='black', linewidth=2.5) if name[0] == OURS else {}
    axes.loglog(known, [table[name][n] for n in known], marker='o', markersize=3, label=', '.join(name), **style)
  axes.set_xlabel('evaluations')
  axes.set_ylabel(f'{figure}, geometric mean')
  axes.set_xticks(budgets, map(str, budgets))
  axes.minorticks_off()
  axes.legend(fontsize=7)
  figure_.savefig(path, dpi=150, bbox_inches='tight')
  plt.close(figure_)


def digits(out: Path, workdir: str, budgets: tuple[int, ...], names: list[str], n: int = 128) -> list[dict]:
  """The cells of a run's network: distance to its own solution, Frechet and sliced Wasserstein to held-out images."""
  from diffjax import run
  from diffjax.experiment import build
  from diffjax.generate import starts
  from diffjax.metrics import protocol
  from diffjax.metrics.frechet import frechet as frechet_distance
  from diffjax.train.sharding import make_mesh

  experiment = build(run.read_config(workdir))
  state = run.restored(experiment, workdir, make_mesh(1, 1, 1))
  denoise = experiment.guided(experiment.denoiser(run.weights(experiment, state)))
  process = experiment.process
  images, labels = run.arrays(experiment, 'test')
  n = min(n, len(images))
  x, _ = starts(denoise, experiment.shape, 0, 0, n)
  cond = None if labels is None else jnp.asarray(labels[:n])
  cells, unknown = Cells(out / 'digits.jsonl'), set(names) - set(SOLVERS)
  if unknown:
    raise SystemExit(f'solvers: got {sorted(unknown)[0]!r}; allowed: {", ".join(SOLVERS)}')
  ends = np.asarray(solvers.sample(denoise, solvers.recommended(process, 200), x, None, cond))
  train, _ = run.arrays(experiment, 'train')
  features = protocol.features_for(experiment.config.data.name, train)[0]
  spread = float(np.sqrt(np.mean(np.sum(np.square(ends - ends.mean(0)), (1, 2, 3)))))
  for nfe in budgets:
    for grid in ('its own', *GRIDS):
      tables = {}
      for name in [OURS] if grid == 'its own' else names:
        table = solvers.recommended(process, nfe) if name == OURS else laid_out(SOLVERS[name], process, grid, nfe)
        tables |= {(name, grid): table} if table is not None else {}
      for (name, _), table in cells.missing(tables, nfe=nfe).items():
        rows = max(len(table.rows.t), 20 if nfe <= 20 else 60)
        padded = solvers.pad(table, rows, max(8, len(table.registers)))  # one program
        got = np.asarray(solvers.sample(denoise, padded, x, jax.random.key(1), cond))
        error = None if table.noisy else float(np.sqrt(np.mean(np.sum((got - ends) ** 2, (1, 2, 3))))) / spread
        frechet = float(frechet_distance(features(images[:n]), features(got)))
        line = dict(evaluations=table.nfe, error=error, frechet=frechet, distance=sliced(got, images[:n]))
        cells.add([line], nfe=nfe, grid=grid, solver=name)
        print(f'{nfe} evaluations, {name} on {grid}: {line}')
  return cells.lines


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--out', default='runs/table_solvers')
  parser.add_argument('--nfe', default=','.join(map(str, BUDGETS)), help='the budgets, in evaluations')
  parser.add_argument('--workdir', default='runs/demo', help='the run, for --scale=digits')
  parser.add_argument('--solvers', default='DDIM,DPM-Solver++(2M),UniPC-2,UniPC-3,DEIS tAB3,iPNDM,GHVB 2.5')
  options = parser.parse_args()
  out, budgets = Path(options.out), tuple(int(n) for n in options.nfe.split(','))
  if options.scale == 'paper':
    print(published())
    return
  if options.scale == 'exact':
    lines = [line for line in exact(out, budgets) if line['nfe'] in budgets]
    text = report(lines, 'error', budgets, out, 'Distance to the solution of the probability-flow ODE')
    floor = float(np.exp(np.mean([np.log(line['floor']) for line in lines])))
    title = f'Sliced Wasserstein-1 distance to exact draws (between two sets of them: {floor:.3g})'
    text += '\n\n' + report(lines, 'distance', budgets, out, title)
  else:
    lines = digits(out, options.workdir, budgets, options.solvers.split(','))
    lines = [line for line in lines if line['nfe'] in budgets]
    text = '\n\n'.join(report(lines, f, budgets, out, f) for f in ('error', 'frechet', 'distance'))
  (out / f'{options.scale}.md').write_text(text + '\n')
  print(text)


if __name__ == '__main__':
  main()
