"""Posterior methods on problems whose posterior is known, on digits, and what their papers print.

    python -m experiments.tables.inverse --scale=exact
    python -m experiments.tables.inverse --scale=digits --run=runs/demo
    python -m experiments.tables.inverse --scale=paper

exact: every method at 64 evaluations on the plane's mixture of three and on an 8-D Gaussian with perfect denoisers:
total variation of the modes' shares, distance of the mean, share of the variance, cost. digits: PSNR and coverage of
`diffjax evaluate` on the run --run: half of the picture, 2 x super-resolution and a third of the pixels. Below the
table the papers' order of two methods, and whether it holds. OUT/SCALE.jsonl keeps what was measured, OUT/SCALE.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffjax.cli import main as diffjax
from experiments.tables.inverse_rows import METHODS, measured, problems

__all__ = ['ORDER', 'holds', 'main']

ORDER = (
  # better, worse, the paper that says so
  ('dps', 'replacement', 'DPS, FFHQ-256'),
  ('pigdm', 'dps', 'PiGDM, ImageNet-256'),
  ('pigdm, exact covariance', 'pigdm', 'Tweedie moment projection'),
  ('daps, as published', 'dps', 'DAPS, FFHQ-256'),
  ('flowdps', 'flowchef', 'FlowDPS, 768 px'),
  ('afdps', 'dps', 'AFDPS, FFHQ-256'),
)
PRINTED = (
  ('DPS', 'FFHQ-256 FID / LPIPS', 'SR x 4 39.35 / .214, box 33.12 / .168, Gaussian blur 44.05 / .257'),
  ('Score-SDE (replacement)', 'as DPS prints it', 'below DPS on every task'),
)
DIGITS = {
  'left half': ('mask', ''),
  '2 x super-resolution': ('downsample', ''),
  'a third of the pixels': (
    'mask',
    '--config.sampling.observation.keep=random --config.sampling.observation.share=0.33',
  ),
}
GUIDES = {
  'dps, normalised': "{'name':'dps','scale':0.3,'normalised':True}",
  'pigdm': "'pigdm'",
  'proximal': "'proximal'",
}


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--out', default='runs/table_inverse')
  parser.add_argument('--run', default='runs/demo', help='the run that draws digits')
  parser.add_argument('--methods', metavar='A;B', help='the rows; all unless given')
  parser.add_argument('--problems', metavar='A;B', help='likewise')
  options, overrides = parser.parse_known_args(arguments)
  if options.scale == 'paper':
    print('\n'.join(table(('method', 'data', 'as printed'), PRINTED)))
    return
  out = Path(options.out)
  out.mkdir(parents=True, exist_ok=True)
  known = {'exact': (problems(), METHODS), 'digits': (DIGITS, GUIDES)}[options.scale]
  asked = [a.split(';') if a else list(k) for a, k in zip((options.problems, options.methods), known, strict=True)]
  if options.scale == 'exact':
    lines = _exact(asked[0], asked[1])
    text = _table_of(lines, ('tv', 'mean', 'variance', 'cost')) + ["\nThe papers' order:\n", *order(lines)]
  else:
    lines = _digits(options.run, out, asked[0], asked[1], overrides)
    text = _table_of(lines, ('psnr of a draw', 'psnr of the mean', 'coverage', 'misfit', 'cost'))
  (out / f'{options.scale}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (out / f'{options.scale}.md').write_text('\n'.join(text) + '\n')
  print('\n'.join(text))


def _exact(asked: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
  known = problems()
  return [dict(problem=p, method=m, **measured(m, known[p])) for p in asked for m in methods]


def _digits(run: str, out: Path, asked: Sequence[str], guides: Sequence[str], overrides: Sequence[str]) -> list:
  lines = []
  for problem in asked:
    name, more = DIGITS[problem]
    for guide in guides:
      told = [f'--config.sampling.observation={name}', *more.split(), f'--config.sampling.guidance=({GUIDES[guide]},)']
      if diffjax(['evaluate', f'--workdir={run}', *told, *overrides]):
        raise SystemExit(2)
      report = json.loads((Path(run) / 'report.json').read_text())
      (Path(run) / 'reconstructions.png').rename(out / f'{name}_{len(lines)}.png')
      psnr = {f'psnr of {"the " if k == "mean" else "a "}{k}': report['psnr'][k]['value'] for k in ('draw', 'mean')}
      lines.append(dict(problem=problem, method=guide, **psnr, coverage=report['coverage']['value'],
                        misfit=report['misfit'], cost=report['cost']))  # fmt: skip
  return lines


def error(line: Mapping[str, Any]) -> float:
  """One number of a cell: total variation, distance of the mean, and how far the variance is off, added."""
  return line['tv'] + line['mean'] + abs(line['variance'] - 1)


def holds(lines: Sequence[Mapping[str, Any]], better: str, worse: str) -> str:
  """On how many of the problems the one has the smaller error."""
  of = {(line['method'], line['problem']): error(line) for line in lines}
  there = [p for m, p in of if m == better and (worse, p) in of]
  won = sum(of[better, p] < of[worse, p] for p in there)
  if not there:
    return 'not measured'
  return f'{"holds" if won == len(there) else "no" if not won else "in part"}: on {won} of {len(there)}'


def order(lines: Sequence[Mapping[str, Any]]) -> list[str]:
  """The papers' claims with the word for each."""
  return [f'- {better} before {worse} ({paper}): {holds(lines, better, worse)}' for better, worse, paper in ORDER]


def _table_of(lines: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> list[str]:
  cells = [(line['problem'], line['method'], *(f'{line[f]:.3g}' for f in figures)) for line in lines]
  return table(('problem', 'method', *figures), cells)


def table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
  """Lines of markdown."""
  return ['| ' + ' | '.join(row) + ' |' for row in (head, ['---'] * len(head), *cells)]


if __name__ == '__main__':
  main()
