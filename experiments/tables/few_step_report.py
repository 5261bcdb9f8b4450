"""The few-step table from its cells: markdown, where the teacher overtakes, the papers' order, one picture."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.tables.few_step_cells import TEACHER
from experiments.tables.few_step_published import ranking

__all__ = ['figure_of', 'overtaken', 'picture', 'report']

WORST = max  # of the seeds; of figures that are better when high, the least


def figure_of(lines: Sequence[Mapping[str, Any]], figure: str, worst: Callable = WORST) -> dict[tuple[str, int], float]:
  """(method, steps) -> the worst of the seeds, of the students that have this figure."""
  found: dict[tuple[str, int], list[float]] = {}
  for line in lines:
    if line['method'] != TEACHER and figure in line:
      found.setdefault((line['method'], line['steps']), []).append(line[figure])
  return {place: worst(values) for place, values in found.items()}


def teachers(lines: Sequence[Mapping[str, Any]], figure: str) -> dict[int, float]:
  """Evaluations -> the teacher's figure, on whichever process it is lowest."""
  found: dict[int, float] = {}
  for line in lines:
    if line['method'] == TEACHER and figure in line:
      found[line['nfe']] = min(line[figure], found.get(line['nfe'], np.inf))
  return found


def overtaken(value: float, teacher: Mapping[int, float]) -> int | None:
  """The fewest evaluations with which the teacher is as good as this; None where it never is."""
  return min((nfe for nfe, there in teacher.items() if there <= value), default=None)


def report(lines: Sequence[Mapping[str, Any]], figures: Sequence[str], steps: Sequence[int], out: Path,
           names: Mapping[str, str]) -> str:  # fmt: skip
  """Markdown of the first figure by method and steps with what else is known, and the CSV of all cells.

  Args:
    lines: the cells.
    figures: their figures, the first the one that methods are ordered by; it is better when low.
    steps: the columns.
    out: the CSV.
    names: the name of a config -> its recipe, by which the papers' figures go.
  """
  main, teacher = figure_of(lines, figures[0]), teachers(lines, figures[0])
  refused = {line['method']: line['refused'] for line in lines if 'refused' in line}
  methods = sorted({name for name, _ in main}, key=lambda name: min(v for (m, _), v in main.items() if m == name))
  spent = {line['method']: line for line in lines if 'forwards' in line}
  heads = ['method', *(f'@ {k}' for k in steps), *(f'teacher overtakes @ {k}' for k in steps), 'forwards', 'backwards']
  text = [f'{figures[0]}, the worst of the seeds, by steps\n', *_head(heads)]
  for name in methods:
    values = [main.get((name, k)) for k in steps]
    after = ['' if v is None else f'{overtaken(v, teacher) or "never"}' for v in values]
    cost = [f'{spent[name][part]:.2f}' if name in spent else '' for part in ('forwards', 'backwards')]
    text.append(_line([name, *map(_number, values), *after, *cost]))
  text.append(_line(['the teacher, by the default solver', *(_number(teacher.get(k)) for k in steps)]))
  text.append('\nThe teacher at growing cost: ' + ', '.join(f'{v:.3g} @ {k}' for k, v in sorted(teacher.items())))
  for figure in figures[1:]:
    low = figure in ('recall', 'label_consistency')
    of = figure_of(lines, figure, min if low else max)
    if of:
      text += [
        f'\n{figure}, the {"least" if low else "greatest"} of the seeds\n',
        *_head(['method', *heads[1 : 1 + len(steps)]]),
      ]
      text += [_line([name, *(_number(of.get((name, k))) for k in steps)]) for name in methods]
      own = teachers(lines, figure) if not low else _best(lines, figure)
      text.append(_line(['the teacher', *(_number(own.get(k)) for k in steps)]))
  if refused:
    text.append('\nNot measured, or not at every number of steps:\n')
    text += [f'- {name}: {why}' for name, why in sorted(refused.items())]
  order = ranking({(names.get(name, name), k): value for (name, k), value in main.items()}, figures[0])
  text += ["\nThe papers' order:\n", *(f'- {line}' for line in order or ['no two of them are measured here'])]
  keys = sorted({key for line in lines for key in line})
  with out.open('w', newline='') as file:
    writer = csv.DictWriter(file, keys)
    writer.writeheader()
    writer.writerows(lines)
  return '\n'.join(text)


def _best(lines: Sequence[Mapping[str, Any]], figure: str) -> dict[int, float]:
  found: dict[int, float] = {}
  for line in lines:
    if line['method'] == TEACHER and figure in line:
      found[line['nfe']] = max(line[figure], found.get(line['nfe'], -np.inf))
  return found


def _head(cells: Sequence[str]) -> list[str]:
  return [_line(cells), '|' + '---|' * len(cells)]


def _line(cells: Sequence[str]) -> str:
  return '| ' + ' | '.join(cells) + ' |'


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.3g}'


def picture(path: Path, samples: Mapping[str, np.ndarray]) -> None:
  """Samples of every method side by side: points, or the first 50 digits."""
  import matplotlib.pyplot as plt

  across = 4
  down = -(-len(samples) // across)
  figure, axes = plt.subplots(down, across, figsize=(2.6 * across, 2.7 * down), squeeze=False)
  for axis in axes.flat:
    axis.axis('off')
  for axis, (name, x) in zip(axes.flat, samples.items(), strict=False):
    if x.ndim == 2:
      axis.scatter(x[:, 0], x[:, 1], s=1, alpha=0.4)
      axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect='equal')
    else:
      tiles = x[:50, ..., 0].reshape(5, -1, *x.shape[1:3]).transpose(0, 2, 1, 3)
      axis.imshow(tiles.reshape(5 * x.shape[1], -1), cmap='gray', vmin=-1, vmax=1)
    axis.set_title(name, fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  plt.close(figure)
