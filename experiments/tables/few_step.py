"""Few-step methods by their number of steps, on the closed-form bench and on digits, beside their teacher.

    python -m experiments.tables.few_step --scale=exact
    python -m experiments.tables.few_step --scale=digits --teacher=runs/demo
    python -m experiments.tables.few_step --scale=paper

Rows are the configs of experiments/configs/fewstep, each at 1, 2, 4 and 8 steps; a student of one number of steps is
trained anew for each. exact: the method on the ring of experiments/ring.py, taught by the closed form: sliced
Wasserstein distance (floor .017), error of the modes' masses, share off every mode, Frechet distance, recall, and, of
methods that need labels, the share with the right one; forwards and backwards of a step are counted with a network in
the teacher's place. digits: the config itself, trained from the run --teacher, with the figures of `diffjax evaluate`.
Beside them the teacher under the library's default solver at 1 to 50 evaluations, and with how many it is as good as a
student. paper: what the papers print.

A cell that was measured is kept in OUT/SCALE.jsonl and not measured again. OUT/SCALE.md is the report, OUT/SCALE.csv
all cells, OUT/SCALE.png samples of every method at the fewest steps. --quick: a few training steps, to see it run.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.runs.config import from_file
from experiments.bench.few_step import configs
from experiments.tables import few_step_cells as cells
from experiments.tables.few_step_published import published
from experiments.tables.few_step_report import picture, report

__all__ = ['STEPS', 'main']

STEPS = (1, 2, 4, 8)
FIGURES = {
  'exact': ('sw', 'tv', 'off', 'frechet', 'recall', 'label_consistency'),
  'digits': ('frechet', 'label_consistency', 'recall', 'sliced_wasserstein', 'kernel_distance'),
}


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--out', default='runs/table_few_step')
  parser.add_argument('--methods', metavar='A,B', help='the rows to measure; all unless given')
  parser.add_argument('--steps', default=','.join(map(str, STEPS)), help='the columns')
  parser.add_argument('--train-steps', type=int, default=5000, help='of a student on the ring')
  parser.add_argument('--seeds', default='0', help='of the students on the ring')
  parser.add_argument('--teacher', default='runs/demo', help='the run that teaches digits')
  parser.add_argument('--quick', action='store_true', help='40 training steps and 2000 samples')
  options, overrides = parser.parse_known_args(arguments)
  if options.scale == 'paper':
    print(published())
    return
  out, steps = Path(options.out), tuple(int(k) for k in options.steps.split(','))
  try:
    paths = configs(options.methods.split(',') if options.methods else None)
  except InputError as error:
    raise SystemExit(str(error)) from None
  if options.scale == 'exact':
    small: dict[str, Any] = dict(n=2000, batch=32) if options.quick else {}
    train_steps, seeds = 40 if options.quick else options.train_steps, [int(s) for s in options.seeds.split(',')]
    lines = cells.exact(out, paths, steps, train_steps, seeds, **small)
    files = {name: out / 'exact' / f'{name}.npy' for name in paths}
  else:
    short = ['--config.train.steps=40', '--config.train.optimiser.warmup=0'] if options.quick else []
    lines = cells.digits(out, paths, steps, options.teacher, [*short, *overrides])
    files = {name: out / 'digits' / name / 'samples.npy' for name in paths}
  shown = [line for line in lines if line['method'] in (*paths, cells.TEACHER)]
  recipes = {name: from_file(str(path)).method.name for name, path in paths.items()}
  text = report(shown, FIGURES[options.scale], steps, out / f'{options.scale}.csv', recipes)
  (out / f'{options.scale}.md').write_text(text + '\n')
  picture(out / f'{options.scale}.png', {name: np.load(file) for name, file in files.items() if file.exists()})
  print(text)


if __name__ == '__main__':
  main()
