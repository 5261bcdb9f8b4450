"""Guidances at one cost on a labelled mixture in closed form, on digits, and what their papers print.

    python -m experiments.tables.guidance --scale=exact
    python -m experiments.tables.guidance --scale=digits --run=runs/demo [--weak=RUN] [--classifier=RUN]
    python -m experiments.tables.guidance --scale=paper

exact: every guidance at no more than 96 evaluations a sample, of the exact model and of one that errs (a tenth of the
labels drawn anew, data smoothed): accuracy by the Bayes classifier, total variation of the components' shares and the
variance kept within a class, sliced Wasserstein distance to the exact conditional law and to the product
p_c^2 p_u^-1 that guidance of weight 2 names. digits: label consistency, Frechet distance and recall by `diffjax
evaluate` on the run --run, at 40 evaluations; autoguidance needs a weaker run, the classifier one of method classifier.
OUT/SCALE.jsonl keeps what was measured, OUT/SCALE.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from diffjax.cli import main as diffjax
from diffjax.errors import InputError
from experiments.tables import guidance_rows as rows
from experiments.tables.inverse import table

__all__ = ['DIGITS', 'best', 'main', 'overrides_of']

FIGURES = ('accuracy', 'tv', 'variance', 'sw', 'product', 'evaluations', 'steps')
REPORTED = ('label_consistency', 'frechet', 'recall', 'nfe')
EVALUATIONS = 40  # of a digit
PRINTED = (
  ('gradient_free', 'ImageNet-512, with autoguidance', 'FD-DINOv2 23.09, precision 94.3% (autoguidance alone 90.2%)'),
  ('elucd', 'ImageNet: DDPM, EDM, DiT', 'up to 20% better'),
)
DIGITS: dict[str, tuple[str, int]] = {
  # config.sampling.guidance, {run} for another run's place, and the evaluations of a step
  'none': ('', 1),
  'cfg': ("{'name':'cfg','scale':2.0}", 2),
  'interval': ("{'name':'cfg','scale':2.0,'interval':(0.2,0.7)}", 2),
  'rescale': ("{'name':'cfg_rescale','scale':2.0}", 2),
  'apg': ("{'name':'apg','scale':2.0}", 2),
  'cfg_zero': ("{'name':'cfg_zero','scale':2.0}", 2),
  'cfgpp': ("{'name':'cfgpp','scale':0.6}", 2),
  'rectified_gradient': ("{'name':'rectified_gradient','scale':2.0}", 4),
  'feedback': ("{'name':'feedback','mixing':0.1}", 2),
  'autoguidance': ("{'name':'autoguidance','scale':2.0,'run':'WEAK'}", 2),
  'classifier': ("{'name':'classifier_guidance','scale':1.0,'run':'CLASSIFIER'}", 2),
}


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--out', default='runs/table_guidance')
  parser.add_argument('--guidances', metavar='A;B', help='the rows; all unless given')
  parser.add_argument('--count', type=int, default=rows.COUNT, help='samples of exact, a multiple of 3')
  parser.add_argument('--budget', type=int, default=rows.BUDGET, help='evaluations a sample of exact')
  parser.add_argument('--run', default='runs/demo', help='the run that draws digits')
  parser.add_argument('--weak', help='a worse run of the same process, for autoguidance')
  parser.add_argument('--classifier', help='a run of method classifier')
  options, overrides = parser.parse_known_args(arguments)
  if options.scale == 'paper':
    print('\n'.join(table(('guidance', 'data', 'as printed'), PRINTED)))
    return
  known = {'exact': rows.GUIDANCES, 'digits': DIGITS}[options.scale]
  asked = options.guidances.split(';') if options.guidances else list(known)
  unknown = [name for name in asked if name not in known]
  if unknown:
    raise SystemExit(str(InputError(f'guidances: got {unknown[0]!r}; allowed: {", ".join(known)}')))
  out = Path(options.out)
  out.mkdir(parents=True, exist_ok=True)
  if options.scale == 'exact':
    lines = _exact(asked, options.count, options.budget)
    text = [*_table_of(lines, ('model', 'guidance'), FIGURES), '', *best(lines)]
  else:
    lines = _digits(asked, options.run, {'WEAK': options.weak, 'CLASSIFIER': options.classifier}, overrides)
    text = _table_of(lines, ('guidance',), REPORTED)
  (out / f'{options.scale}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (out / f'{options.scale}.md').write_text('\n'.join(text) + '\n')
  print('\n'.join(text))


def _exact(asked: Sequence[str], count: int, budget: int) -> list[dict[str, Any]]:
  floor = dict(**rows.figures(rows.conditional(count, seed=9)), evaluations=0, steps=0)
  lines = [dict(model='-', guidance='exact draws', **floor)]
  lines += [dict(model='-', guidance='exact product', **rows.figures(rows.product(count)), evaluations=0, steps=0)]
  for model in rows.MODELS:
    lines += [dict(model=model, guidance=g, **rows.measured(g, model, count=count, budget=budget)) for g in asked]
  return lines


def best(lines: Sequence[Mapping[str, Any]]) -> list[str]:
  """For each model the guidances nearest to the conditional law and to the product, and the most accurate."""
  said = []
  for model in dict.fromkeys(line['model'] for line in lines if line['model'] != '-'):
    own = [line for line in lines if line['model'] == model]
    for figure, what in (('sw', 'nearest to the conditional law'), ('product', 'nearest to the product')):
      near = sorted(own, key=itemgetter(figure))[:3]
      said.append(f'- {model}: {what}: {", ".join(line["guidance"] for line in near)}')
    most = sorted(own, key=lambda line: -line['accuracy'])[:3]
    said.append(f'- {model}: most accurate: {", ".join(line["guidance"] for line in most)}')
  return said


def overrides_of(name: str, runs: Mapping[str, str | None]) -> list[str] | None:
  """What `diffjax evaluate` is told of a guidance, at one cost; None where it needs a run that was not given."""
  spec, cost = DIGITS[name]
  for place, run in runs.items():
    if f"'{place}'" in spec and run is None:
      return None
    spec = spec.replace(f"'{place}'", repr(run))
  told = ['--config.sampling.guidance_scale=1.0', f'--config.sampling.steps={EVALUATIONS // cost}']
  told += [f'--config.sampling.guidance=({spec},)'] if spec else []
  return told + (['--config.sampling.solver=ancestral'] if name == 'feedback' else [])


def _digits(asked: Sequence[str], run: str, runs: Mapping[str, str | None], overrides: Sequence[str]) -> list:
  lines = []
  for name in asked:
    told = overrides_of(name, runs)
    if told is None:
      print(f'{name}: left out, its run was not given')
      continue
    if diffjax(['evaluate', f'--workdir={run}', *told, *overrides]):
      raise SystemExit(2)
    report = json.loads((Path(run) / 'report.json').read_text())
    lines.append(dict(guidance=name, **{figure: report[figure] for figure in REPORTED}))
  return lines


def _table_of(lines: Sequence[Mapping[str, Any]], names: Sequence[str], figures: Sequence[str]) -> list[str]:
  cells = [(*(line[k] for k in names), *(f'{line[k]:.3g}' for k in figures)) for line in lines]
  return table((*names, *figures), cells)


if __name__ == '__main__':
  main()
