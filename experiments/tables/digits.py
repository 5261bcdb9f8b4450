"""The main job over several seeds: the figures of report.json with their floors, as markdown and CSV.

    python -m experiments.tables.digits --seeds=0,1,2 [--config.section.key=value ...]

Each seed trains and evaluates experiments/configs/digits.py in runs/table_digits/SEED (resumed if it was stopped, read
if it is done) and counts as passed where it meets the bars, which were set before any run:
label consistency >= .985, Frechet <= 1.5 x floor, recall >= .95 x floor, near copies <= held-out's + .025.
"""

import argparse
import csv
import json
from pathlib import Path

from diffjax.cli import main as diffjax

__all__ = ['bars', 'row']

COLUMNS = {
  'seed': 'seed',
  'label consistency': 'label_consistency',
  'Frechet': 'frechet',
  'Frechet / floor': '',
  'recall': 'recall',
  'recall / floor': '',
  'precision': 'precision',
  'near copies': 'near_copies',
  'held-out': 'near_copies_heldout',
  'nfe': 'nfe',
  'seconds': '',
  'bars': '',
}


def bars(report: dict) -> dict[str, bool]:
  """Which of the four bars a report meets."""
  return {
    'label_consistency': report['label_consistency'] >= 0.985,
    'frechet': report['frechet'] <= 1.5 * report['frechet_floor'],
    'recall': report['recall'] >= 0.95 * report['recall_floor'],
    'near_copies': report['near_copies'] <= report['near_copies_heldout'] + 0.025,
  }


def row(report: dict) -> dict[str, str]:
  """One line of the table."""
  seconds = sum(v or 0 for k, v in report['wall_s'].items() if k != 'install')
  missed = [name for name, met in bars(report).items() if not met]
  shown = {title: _number(report[key]) for title, key in COLUMNS.items() if key}
  shown['Frechet / floor'] = _number(report['frechet'] / report['frechet_floor'])
  shown['recall / floor'] = _number(report['recall'] / report['recall_floor'])
  shown |= {'seconds': f'{seconds:.0f}', 'bars': 'met' if not missed else 'missed: ' + ', '.join(missed)}
  return {title: shown[title] for title in COLUMNS}


def _number(value: float) -> str:
  return str(value) if isinstance(value, int) else f'{value:.3f}'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--workdir', default='runs/table_digits')
  options, overrides = parser.parse_known_args()
  rows = []
  for seed in options.seeds.split(','):
    workdir = Path(options.workdir) / seed
    config = 'experiments/configs/digits.py'
    if not (workdir / 'report.json').exists():
      run = ['train', f'--config={config}', f'--workdir={workdir}', f'--config.seed={seed}', *overrides]
      if diffjax(run) or diffjax(['evaluate', f'--workdir={workdir}']):
        raise SystemExit(2)
    rows.append(row(json.loads((workdir / 'report.json').read_text())))
  with (Path(options.workdir) / 'table.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, list(COLUMNS))
    writer.writeheader()
    writer.writerows(rows)
  print('| ' + ' | '.join(COLUMNS) + ' |')
  print('|' + '---|' * len(COLUMNS))
  for line in rows:
    print('| ' + ' | '.join(line.values()) + ' |')


if __name__ == '__main__':
  main()
