"""The solver table from its cells: markdown, CSV and curves."""

import csv
from pathlib import Path

import numpy as np

from experiments.tables.solver_rows import OURS, ROWS

__all__ = ['report']

DEFAULT = (OURS, 'its own')
Name = tuple[str, str]  # solver, grid


def report(lines: list[dict], figure: str, budgets: tuple[int, ...], out: Path, title: str) -> str:
  """Markdown: each solver on its best grid, best first; whether the default beats every published configuration.

  Solvers informed by the target stand by themselves, and so do those that some process does not allow, with the
  default's mean over the same places behind.
  """
  values = _values(lines, figure)
  places = {name: set().union(*row.values()) for name, row in values.items()}
  most = max((len(found) for found in places.values()), default=0)
  rows = {name: _means(row, places[name]) for name, row in values.items()}
  score = {name: _overall(row, budgets) for name, row in rows.items()}
  there = {name: _overall(_means(values.get(DEFAULT, {}), found), budgets) for name, found in places.items()}
  whole = _on_their_best_grids({name: s for name, s in score.items() if len(places[name]) == most})
  rest = _on_their_best_grids({name: s / there[name] for name, s in score.items() if len(places[name]) < most})
  text = [f'{title}\n', *_table([(n, rows[n], ()) for n in whole if _group(n) != 'informed'], budgets)]
  if informed := [(n, rows[n], ()) for n in whole if _group(n) == 'informed']:
    text += ['\nInformed by the target, through statistics of it or moments of the noise\n', *_table(informed, budgets)]
  if rest:
    text += ['\nNot on every process; the means are over the places there are\n']
    beside = [(n, rows[n], (f'{len(places[n])} of {most}', _number(there[n]))) for n in rest]
    text += _table(beside, budgets, 'places', 'default there')
  if figure == 'error':
    text.append(_verdict(score, there, {name for name, found in places.items() if len(found) == most}))
  with (out / f'{figure}.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['solver', 'grid', 'places', *budgets])
    for name, row in sorted(rows.items()):
      writer.writerow([*name, len(places[name]), *(row.get(n, '') for n in budgets)])
  _curves(rows, whole[:10], budgets, out / f'{figure}.png', figure)
  return '\n'.join(text)


def _values(lines: list[dict], figure: str) -> dict[Name, dict[int, dict[tuple, float]]]:
  """(solver, grid) -> evaluations -> (target, process) -> the figure."""
  found: dict = {}
  for line in lines:
    if line[figure] is not None:
      row = found.setdefault((line['solver'], line['grid']), {})
      row.setdefault(line['nfe'], {})[line.get('target'), line.get('process')] = line[figure]
  return found


def _means(row: dict[int, dict[tuple, float]], places: set[tuple]) -> dict[int, float]:
  """Evaluations -> the geometric mean over these places, where all of them have it."""
  return {nfe: _mean([there[p] for p in places]) for nfe, there in row.items() if places <= there.keys()}


def _overall(row: dict[int, float], budgets: tuple[int, ...]) -> float:
  """Geometric mean over the budgets; infinite where one is missing."""
  return _mean([row[n] for n in budgets]) if all(n in row for n in budgets) else float('inf')


def _mean(values: list[float]) -> float:
  return float(np.exp(np.mean(np.log(np.minimum(values, 1e6)))))


def _group(name: Name) -> str:
  return 'default' if name == DEFAULT else ROWS[name[0]].group


def _on_their_best_grids(score: dict[Name, float]) -> list[Name]:
  """One grid a solver, best first."""
  best: dict[str, Name] = {}
  for name in sorted(score, key=lambda name: score[name]):
    best.setdefault(name[0], name)
  return list(best.values())


def _table(rows: list[tuple[Name, dict, tuple]], budgets: tuple[int, ...], *more: str) -> list[str]:
  """Markdown lines of (name, means, further cells)."""
  heads = ('solver', 'its best grid', *map(str, budgets), 'all', *more)
  text = ['| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
  for name, row, cells in rows:
    shown = [_number(row.get(n, np.inf)) for n in budgets]
    text.append('| ' + ' | '.join((*name, *shown, _number(_overall(row, budgets)), *cells)) + ' |')
  return text


def _number(value: float) -> str:
  return f'{value:.3g}' if np.isfinite(value) else ''


def _verdict(score: dict[Name, float], there: dict[Name, float], whole: set[Name]) -> str:
  """Whether the default has a lower mean than every published configuration, which like it know nothing of the target.

  One that some process does not allow is compared over the places it has.
  """
  others = {name: s for name, s in score.items() if _group(name) == 'published'}
  everywhere = {name: s for name, s in others.items() if name in whole}
  if DEFAULT not in score or not everywhere:
    return ''
  first = min(everywhere, key=lambda name: everywhere[name])
  verdict = 'lower than' if score[DEFAULT] < everywhere[first] else 'NOT lower than'
  beaten = sum(s > there[name] or not np.isfinite(s) for name, s in others.items() if name not in whole)
  return (f'\nDefault {score[DEFAULT]:.3g}: {verdict} each of the {len(everywhere)} published configurations on all '
          f'processes, of which {first[0]} on {first[1]} is the best with {everywhere[first]:.3g}; lower than '
          f'{beaten} of the {len(others) - len(everywhere)} others.')  # fmt: skip


def _curves(rows: dict, names: list[Name], budgets: tuple[int, ...], path: Path, figure: str) -> None:
  import matplotlib.pyplot as plt

  figure_, axes = plt.subplots(figsize=(7, 5))
  for name in names:
    known = [n for n in budgets if n in rows[name]]
    style = dict(color='black', linewidth=2.5) if name[0] == OURS else {}
    axes.loglog(known, [rows[name][n] for n in known], marker='o', markersize=3, label=', '.join(name), **style)
  axes.set_xlabel('evaluations')
  axes.set_ylabel(f'{figure}, geometric mean')
  axes.set_xticks(budgets, map(str, budgets))
  axes.minorticks_off()
  axes.legend(fontsize=7)
  figure_.savefig(path, dpi=150, bbox_inches='tight')
  plt.close(figure_)
