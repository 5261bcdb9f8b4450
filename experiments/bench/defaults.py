"""Which order `solvers.recommended` takes, decided on exact targets of deviations from .2 to 3 and on a run's network.

    python -m experiments.bench.defaults [--workdir=runs/demo]

Exact: the shapes of `targets.tuning` scaled to each deviation, four processes. Every order and last order of
`trig_adams` on the grid of `recommended`, told the target's deviation or .5; beside the best published configuration,
one for all budgets and places. Error: root mean square distance to the solution of the probability-flow ODE over the
target's deviation; a line is the geometric mean over targets, deviations and processes.

Network: the same tables on a trained run, told the deviation of its data, against `recommended` of 200 evaluations.

The rule: the order of the least mean over the budgets is the default of that kind of score. It must also be lower than
the best published configuration at every deviation. Measured (2 cores; 80 places): the best published is iPNDM on
uniform_lam with .0905; order 2, last 1 has .0186 told the target's deviation and .0516 told .5; the orders of
`recommended(exact=True)`, by budget, have .112, .0472, .0212, .00929, .0031 and .00133. The digits network after 900
steps (deviation .541; 6, 10, 20 evaluations): order 2, last 1 .0173, last 2 .0181; order 3 .0202; order 4 .0343; the
best published, UniPC-2 on quadratic, .0260.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import schedules, solvers
from diffjax.exact import Mixture
from diffjax.process import Process
from diffjax.solvers import grids
from experiments.tables import solver_cells as cells
from experiments.tables import solver_rows as rows
from experiments.tables import targets

__all__ = ['candidates', 'exact', 'network', 'scaled']

STDS = (0.2, 0.5, 1.0, 2.0, 3.0)
BUDGETS = (4, 6, 8, 10, 15, 20)
STARTS = 256
SHAPES = ('isotropic 2-D mixture', 'three modes in 1-D', '4-D mixture', '16-D power law')
PUBLISHED = ('DPM-Solver++(2M)', 'UniPC-2', 'UniPC-3', 'iPNDM', 'DEIS tAB3')
GRIDS = ('uniform', 'quadratic', 'uniform_lam', 'karras')
ORDERS = ((2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2))  # of all steps, and of the last


def scaled(target: Mixture, std: float) -> Mixture:
  """The target, means and covariances, with this deviation sqrt(tr cov / d)."""
  c = std / np.sqrt(np.trace(target.covariance()) / target.means.shape[1])
  return target.replace(means=c * target.means, var=c**2 * target.var)


def candidates(process: Process, nfe: int, data_std: float) -> dict[tuple[int, int], Any]:
  """(order, last order) -> table, with so many evaluations."""
  ts = grids.noise_share(process, nfe, data_std=1.4 * data_std, power=1.5)
  return {
    (order, final): solvers.trig_adams(process, ts, min(order, nfe), data_std=data_std, final_order=min(final, nfe))
    for order, final in ORDERS
  }


def exact() -> list[dict]:
  """One line a target, deviation, process, budget and configuration."""
  lines = []
  with jax.enable_x64(True):
    for shape in SHAPES:
      for name, kind in cells.PROCESSES.items():
        process = getattr(schedules, kind)()
        for std in STDS:
          target = scaled(targets.tuning()[shape], std)
          d = target.means.shape[1]
          z = np.random.default_rng(0).standard_normal((STARTS, d))
          x, denoise = float(process.schedule(process.t_max)[1]) * z, target.denoiser(process)
          laid = dict(_laid_out(process, std))
          ends = cells.solution(denoise, x)
          for (what, nfe), got in cells.runs(denoise, laid, jnp.asarray(x)):
            error = float(np.sqrt(np.mean(np.square(got - ends)))) / std
            lines.append(dict(shape=shape, process=name, std=std, nfe=nfe, what=what, error=error))
        print(f'{shape}, {name}', flush=True)
  return lines


def _laid_out(process: Process, std: float) -> Iterator[tuple[tuple[str, int], Any]]:
  for nfe in BUDGETS:
    for told in dict.fromkeys((std, 0.5)):
      which = 'its own' if told == std else '.5'
      for (order, final), table in candidates(process, nfe, told).items():
        yield (f'order {order}, last {final}, told {which}', nfe), table
        if std == told == 0.5:
          yield (f'order {order}, last {final}, told .5', nfe), table
    for name in PUBLISHED:
      for grid in GRIDS:
        table = rows.laid_out(rows.ROWS[name], process, grid, nfe)
        if table is not None:
          yield (f'{name} on {grid}', nfe), table


def network(workdir: str, budgets: tuple[int, ...] = BUDGETS, n: int = 128) -> list[dict]:
  """The orders on a run's network, with its guidance and labels of the test split; lines as of `exact`."""
  from diffjax.methods import solved
  from diffjax.runs import directory, examples, record
  from diffjax.runs.experiment import build
  from diffjax.runs.generate import key_batch
  from diffjax.runs.spread import overall
  from diffjax.train.sharding import make_mesh

  what = build(record.read_config(workdir))
  roles = directory.weights(what, directory.restored(what, workdir, make_mesh(1, 1, 1)))
  denoise = what.guided(what.denoiser(roles), roles)
  labels = examples.arrays(what, 'test')[1]
  cond = None if labels is None else jnp.asarray(labels[:n])
  told = overall(what.spread(workdir)) or 0.5
  fine = solvers.recommended(denoise.process, 200, told)
  x, _ = solved(denoise, fine, what.shape, what.spread(workdir)).start(key_batch(0, np.arange(n)))
  ends = np.asarray(solvers.sample(denoise, fine, x, None, cond))
  lines = []
  for nfe in budgets:
    laid = {f'order {o}, last {f}': table for (o, f), table in candidates(denoise.process, nfe, told).items()}
    laid |= {f'{name} on {grid}': rows.laid_out(rows.ROWS[name], denoise.process, grid, nfe) for name in PUBLISHED[:4]
             for grid in GRIDS[:3]}  # fmt: skip
    laid = {name: table for name, table in laid.items() if table is not None}
    for name, got in cells.runs(denoise, laid, x, cond):
      error = float(np.sqrt(np.mean(np.square(got - ends)))) / told
      lines.append(dict(shape=workdir, process=what.config.process.name, std=told, nfe=nfe, what=name, error=error))
  return lines


def mean(lines: list[dict], **place: Any) -> float:
  """The geometric mean of the errors at this place."""
  return float(np.exp(np.mean([np.log(line['error']) for line in lines if place.items() <= line.items()])))


def verdict(lines: list[dict]) -> str:
  """The means by budget and by deviation, the best published configuration, and the order that wins."""
  names, stds = dict.fromkeys(line['what'] for line in lines), sorted({line['std'] for line in lines})
  budgets = sorted({line['nfe'] for line in lines})
  ours = [name for name in names if name.startswith('order')]
  published = min((name for name in names if name not in ours), key=lambda name: mean(lines, what=name))
  best = min((name for name in ours if 'told .5' not in name), key=lambda name: mean(lines, what=name))
  head = [f'{n} evaluations' for n in budgets] + [f'deviation {std:.3g}' for std in stds]
  text = ['| | ' + ' | '.join(['all', 'of published', *head]) + ' |', '|---' * (len(head) + 3) + '|']
  for name in (*ours, published):
    values = [mean(lines, what=name), mean(lines, what=name) / mean(lines, what=published)]
    values += [mean(lines, what=name, nfe=n) for n in budgets] + [mean(lines, what=name, std=std) for std in stds]
    text.append(f'| {name} | ' + ' | '.join(f'{v:.3g}' for v in values) + ' |')
  least = [name for n in budgets for name in [min(ours, key=lambda name: mean(lines, what=name, nfe=n))]]  # noqa: B023
  text.append('\nleast error by budget: ' + '; '.join(f'{n}: {name}' for n, name in zip(budgets, least, strict=True)))
  lower = all(mean(lines, what=best, std=std) < mean(lines, what=published, std=std) for std in stds)
  text.append(f'the rule: {best}; {"lower" if lower else "NOT lower"} than {published} at every deviation')
  return '\n'.join(text)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', help='a run whose network is measured too')
  workdir = parser.parse_args().workdir
  print(verdict(exact()))
  if workdir:
    print(verdict(network(workdir)))


if __name__ == '__main__':
  main()
