"""Every solver on every grid: error against the number of evaluations, as markdown, CSV and curves.

    python -m experiments.tables.solvers --scale=exact
    python -m experiments.tables.solvers --scale=digits --workdir=runs/demo
    python -m experiments.tables.solvers --scale=paper

exact: three targets in closed form x four processes. Error: root mean square distance, over the target's standard
deviation, to where the probability-flow ODE takes the same starts; for all solvers, also the sliced Wasserstein-1
distance to exact draws (floor: between two sets of exact draws). digits: a run's network at the guidance of its config,
distance to its own solution, Frechet and sliced Wasserstein of the samples. paper: what the papers print, and the
checkpoint and statistics files that a run of ours would need.

A cell that was measured is kept in OUT/SCALE.jsonl and not measured again; a run that was stopped goes on. The report
is of all that is there.
"""

import argparse
from pathlib import Path

import numpy as np

from diffjax.errors import InputError
from experiments.tables.published import published
from experiments.tables.solver_cells import digits, exact
from experiments.tables.solver_report import report
from experiments.tables.solver_rows import chosen

__all__ = ['BUDGETS', 'main']

BUDGETS = (4, 5, 6, 8, 10, 15, 20, 50)
FEW = 'DDIM;DPM-Solver++(2M);UniPC-2;UniPC-3;DEIS tAB3;iPNDM;GHVB 2.5'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--out', default='runs/table_solvers')
  parser.add_argument('--nfe', default=','.join(map(str, BUDGETS)), help='the budgets, in evaluations')
  parser.add_argument('--workdir', default='runs/demo', help='the run, for --scale=digits')
  parser.add_argument('--solvers', metavar='A;B', help=f'the rows to measure; all on exact targets, on digits {FEW}')
  options = parser.parse_args()
  out, budgets = Path(options.out), tuple(int(n) for n in options.nfe.split(','))
  if options.scale == 'paper':
    print(published())
    return
  try:
    names = chosen(options.solvers or (None if options.scale == 'exact' else FEW), informed=options.scale == 'exact')
  except InputError as error:
    raise SystemExit(str(error)) from None
  if options.scale == 'exact':
    lines = [line for line in exact(out, budgets, names) if line['nfe'] in budgets]
    text = report(lines, 'error', budgets, out, 'Distance to the solution of the probability-flow ODE')
    floor = float(np.exp(np.mean([np.log(line['floor']) for line in lines])))
    title = f'Sliced Wasserstein-1 distance to exact draws (between two sets of them: {floor:.3g})'
    text += '\n\n' + report(lines, 'distance', budgets, out, title)
  else:
    lines = [line for line in digits(out, options.workdir, budgets, names) if line['nfe'] in budgets]
    text = '\n\n'.join(report(lines, f, budgets, out, f) for f in ('error', 'frechet', 'distance'))
  (out / f'{options.scale}.md').write_text(text + '\n')
  print(text)


if __name__ == '__main__':
  main()
