"""The few-step table from its cells: markdown, where the teacher overtakes, the papers' order, one picture."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.tables.few_step_cells import TEACHER
from experiments.tables.few_step_published import ranking

__all__ = ['overtaken', 'picture', 'report', 'students', 'teachers']

Cells = Sequence[Mapping[str, Any]]
HIGH = ('recall', 'label_consistency')  # better when high


def students(lines: Cells, figure: str) -> dict[tuple[str, int], float]:
  """(method, steps) -> the worst of the seeds, of the students that have this figure."""
  worst = min if figure in HIGH else max
  there = [((line['method'], line['steps']), line) for line in lines if line['method'] != TEACHER]
  return _one(there, figure, worst)


def teachers(lines: Cells, figure: str) -> dict[int, float]:
  """Evaluations -> the teacher's figure, on whichever process it is best."""
  best = max if figure in HIGH else min
  return _one([(line['nfe'], line) for line in lines if line['method'] == TEACHER], figure, best)


def _one(places: Sequence[tuple[Any, Mapping[str, Any]]], figure: str, of: Callable) -> dict[Any, float]:
  found: dict[Any, list[float]] = {}
  for place, line in places:
    if figure in line:
      found.setdefault(place, []).append(line[figure])
  return {place: of(values) for place, values in found.items()}


def overtaken(value: float, teacher: Mapping[int, float]) -> int | None:
  """The fewest evaluations with which the teacher's figure, better when low, is no greater; None where it never is."""
  return min((nfe for nfe, there in teacher.items() if there <= value), default=None)


def report(lines: Cells, figures: Sequence[str], steps: Sequence[int], out: Path, names: Mapping[str, str]) -> str:
  """Markdown of the figures by method and steps, and of what else is known; a CSV of all cells.

  Args:
    lines: the cells.
    figures: theirs, of which the first, better when low, orders the methods.
    steps: the columns.
    out: the CSV.
    names: the name of a config -> its recipe, by which the papers' figures go.
  """
  main = students(lines, figures[0])
  methods = sorted({name for name, _ in main}, key=lambda name: min(v for (m, _), v in main.items() if m == name))
  refused = {line['method']: line['refused'] for line in lines if 'refused' in line}
  text = _first(lines, figures[0], methods, steps)
  for figure in figures[1:]:
    if of := students(lines, figure):
      own, heads = teachers(lines, figure), ['method', *(f'@ {k}' for k in steps)]
      text += [f'\n{figure}, the {"least" if figure in HIGH else "greatest"} of the seeds\n', *_head(heads)]
      text += [_line([name, *(_number(of.get((name, k))) for k in steps)]) for name in methods]
      text.append(_line(['the teacher', *(_number(own.get(k)) for k in steps)]))
  if refused:
    text.append('\nNot measured, or not at every number of steps:\n')
    text += [f'- {name}: {why}' for name, why in sorted(refused.items())]
  order = ranking({(names.get(name, name), k): value for (name, k), value in main.items()}, figures[0])
  text += ["\nThe papers' order:\n", *(f'- {line}' for line in order or ['no two of them are measured here'])]
  with out.open('w', newline='') as file:
    writer = csv.DictWriter(file, sorted({key for line in lines for key in line}))
    writer.writeheader()
    writer.writerows(lines)
  return '\n'.join(text)


def _first(lines: Cells, figure: str, methods: Sequence[str], steps: Sequence[int]) -> list[str]:
  """The first figure, when the teacher overtakes, and what a step of training costs."""
  main, teacher = students(lines, figure), teachers(lines, figure)
  spent = {line['method']: line for line in lines if 'forwards' in line}
  heads = ['method', *(f'@ {k}' for k in steps), *(f'teacher overtakes @ {k}' for k in steps), 'forwards', 'backwards']
  text = [f'{figure}, the worst of the seeds, by steps\n', *_head(heads)]
  for name in methods:
    values = [main.get((name, k)) for k in steps]
    after = ['' if v is None else f'{overtaken(v, teacher) or "never"}' for v in values]
    cost = [f'{spent[name][part]:.2f}' if name in spent else '' for part in ('forwards', 'backwards')]
    text.append(_line([name, *map(_number, values), *after, *cost]))
  text.append(_line(['the teacher, by the default solver', *(_number(teacher.get(k)) for k in steps)]))
  return [*text, '\nThe teacher at growing cost: ' + ', '.join(f'{v:.3g} @ {k}' for k, v in sorted(teacher.items()))]


def _head(cells: Sequence[str]) -> list[str]:
  return [_line(cells), '|' + '---|' * len(cells)]


def _line(cells: Sequence[str]) -> str:
  return '| ' + ' | '.join(cells) + ' |'


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.3g}'


def picture(path: Path, samples: Mapping[str, np.ndarray]) -> None:
  """Samples of every method side by side: points, or the first 50 digits."""
  import matplotlib.pyplot as plt

  if not samples:
    return
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
