"""Score-based SDEs on a mixture in closed form: three processes, samplers at one cost, likelihood.

    python -m experiments.tables.score_sde --scale=exact
    python -m experiments.tables.score_sde --scale=digits --run=runs/demo
    python -m experiments.tables.score_sde --scale=paper

exact: VP, sub-VP and VE with perfect scores on the plane's mixture of three, --levels evaluations a sample: ancestral,
reverse diffusion, Euler-Maruyama, predictor-corrector with half as many levels (and with as many, at twice the cost),
and the probability flow by dopri5. tv: total variation of the shares of the nearest component; within: mean squared
distance from it over the exact one; sw: sliced Wasserstein distance to exact draws. Of the likelihood the largest error
of log p at exact draws. digits: the figures of `diffjax evaluate` on --run under each sampler. Below the table what the
paper says, and whether it holds. OUT/SCALE.jsonl keeps what was measured, OUT/SCALE.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact, keys, likelihood, schedules, solvers
from diffjax.cli import main as diffjax
from diffjax.metrics.transport import sliced_wasserstein
from diffjax.process import Process
from diffjax.solvers import grids, sample
from experiments.tables.inverse import table

__all__ = ['PROCESSES', 'SAMPLERS', 'likelihoods', 'main', 'measured', 'ranking']

COUNT, LEVELS = 20000, 100
WEIGHTS, MEANS, VARIANCE = (0.5, 0.3, 0.2), np.array([[-2, 0], [2, 0], [0, 2.5]]), 0.25
TARGET = exact.mixture(WEIGHTS, MEANS, [VARIANCE] * 3)
PROCESSES = {'VP': schedules.vp_linear(), 'sub-VP': schedules.sub_vp(), 'VE': schedules.ve()}
SAMPLERS = ('ancestral', 'reverse diffusion', 'Euler-Maruyama', 'predictor-corrector', 'predictor-corrector, twice',
            'probability flow')  # fmt: skip
FIGURES = ('tv', 'within', 'sw', 'evaluations')
PRINTED = (('CIFAR-10, unconditional', 'FID 2.20, IS 9.89'), ('CIFAR-10, likelihood', '2.99 bits a dimension'))
DIGITS = {
  'ancestral': '--config.sampling.solver=ancestral',
  'reverse diffusion': '--config.sampling.solver=reverse_diffusion',
  'Euler-Maruyama': '--config.sampling.solver=euler_maruyama',
  'predictor-corrector': '--config.sampling.solver=predictor_corrector',
}


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--out', default='runs/table_score_sde')
  parser.add_argument('--run', default='runs/demo', help='the run that draws digits')
  parser.add_argument('--levels', type=int, default=LEVELS, help='evaluations a sample')
  parser.add_argument('--count', type=int, default=COUNT, help='samples, of exact')
  options, overrides = parser.parse_known_args(arguments)
  if options.scale == 'paper':
    print('\n'.join(table(('what', 'as printed'), PRINTED)))
    return
  out = Path(options.out)
  out.mkdir(parents=True, exist_ok=True)
  if options.scale == 'exact':
    lines = [
      dict(process=process, sampler=sampler, **measured(process, sampler, count=options.count, levels=options.levels))
      for process in PROCESSES
      for sampler in SAMPLERS
      if (process, sampler) != ('sub-VP', 'ancestral')  # there is none
    ]
    told = {process: likelihoods(process, min(options.count, 500)) for process in PROCESSES}
    text = _table_of(lines, ('process', 'sampler'), FIGURES)
    text += ['', *table(('process', 'largest error of log p, nats', 'evaluations'), [
      (process, f'{error:.2g}', f'{nfe:.0f}') for process, (error, nfe) in told.items()])]  # fmt: skip
    text += ['\nThe paper:\n', *(f'- {what}: {value}' for what, value in PRINTED), *ranking(lines)]
  else:
    lines = _digits(options.run, options.levels, overrides)
    text = _table_of(lines, ('sampler',), ('label_consistency', 'frechet', 'recall', 'nfe'))
  (out / f'{options.scale}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (out / f'{options.scale}.md').write_text('\n'.join(text) + '\n')
  print('\n'.join(text))


def _solver(sampler: str, process: Process, levels: int) -> Any:
  """Of `levels` evaluations but for the corrector at twice the cost."""
  if sampler.startswith('predictor'):
    n = levels if sampler.endswith('twice') else levels // 2
    return solvers.predictor_corrector(process, grids.uniform(process, n, False), corrector='ald')
  make = {'ancestral': solvers.ancestral, 'reverse diffusion': solvers.reverse_diffusion,
          'Euler-Maruyama': solvers.euler_maruyama}[sampler]  # fmt: skip
  return make(process, grids.uniform(process, levels, False))


def measured(process: str, sampler: str, *, count: int = COUNT, levels: int = LEVELS) -> dict[str, float]:
  """The figures of samples from perfect scores; see the top."""
  of, n = PROCESSES[process], levels
  denoise = TARGET.denoiser(of)
  alpha, sigma = of.schedule(of.t_max)
  std = jnp.sqrt(alpha**2 * jnp.trace(TARGET.covariance()) / 2 + sigma**2)
  x = alpha * TARGET.mean() + std * jax.random.normal(jax.random.key(0), (count, 2))
  if sampler == 'probability flow':
    solution = solvers.dopri5(denoise, x)
    x, n = solution.x, float(solution.nfe.mean())
  else:
    x = sample(denoise, _solver(sampler, of, levels), x, jax.random.key(1))
    n = 2 * levels if sampler.endswith('twice') else levels
  return dict(**figures(np.asarray(x, float)), evaluations=n)


def figures(x: np.ndarray) -> dict[str, float]:
  """Total variation of shares, spread within a component over the exact one, sliced Wasserstein distance."""
  truth = np.asarray(TARGET.sample(keys.per_sample(jax.random.key(2), len(x))), float)
  shares, within = [], []
  for points in (x, truth):
    square = ((points[:, None] - MEANS) ** 2).sum(-1)
    shares.append(np.bincount(square.argmin(1), minlength=3) / len(points))
    within.append(square.min(1).mean())
  return dict(
    tv=float(np.abs(shares[0] - shares[1]).sum() / 2),
    within=float(within[0] / within[1]),
    sw=sliced_wasserstein(truth, x, 64),
  )


def likelihoods(process: str, count: int = 500) -> tuple[float, float]:
  """The largest error of log p at exact draws with the noise of t_min, in nats, and the mean of the evaluations."""
  of = PROCESSES[process]
  k_x, k_noise = jax.random.split(jax.random.key(3))
  alpha, sigma = of.schedule(of.t_min)
  x = alpha * TARGET.sample(keys.per_sample(k_x, count)) + sigma * jax.random.normal(k_noise, (count, 2))
  std = float(jnp.sqrt(jnp.trace(TARGET.covariance()) / 2))
  told = likelihood.log_density(TARGET.denoiser(of), x, data_mean=TARGET.mean(), data_std=std)
  return float(jnp.abs(told.log_p - TARGET.log_density(x, alpha, sigma)).max()), float(told.nfe.mean())


def ranking(lines: Sequence[Mapping[str, Any]]) -> list[str]:
  """The corrector against its predictor, at as many levels and at equal cost, by the sliced Wasserstein distance."""
  of = {(line['process'], line['sampler']): line['sw'] for line in lines}
  said = []
  for what, row in (('as many levels', 'predictor-corrector, twice'), ('equal cost', 'predictor-corrector')):
    there = [p for p in PROCESSES if (p, row) in of and (p, 'reverse diffusion') in of]
    won = [p for p in there if of[p, row] < of[p, 'reverse diffusion']]
    said.append(f'- the corrector is better than its predictor alone, {what}: {len(won)} of {len(there)} processes'
                + (f' ({", ".join(won)})' if won else ''))  # fmt: skip
  return said


def _digits(run: str, levels: int, overrides: Sequence[str]) -> list[dict[str, Any]]:
  lines = []
  for sampler, override in DIGITS.items():
    n = levels // 2 if sampler.startswith('predictor') else levels
    if diffjax(['evaluate', f'--workdir={run}', override, f'--config.sampling.steps={n}', *overrides]):
      raise SystemExit(2)
    report = json.loads((Path(run) / 'report.json').read_text())
    lines.append(dict(sampler=sampler, **{k: report[k] for k in ('label_consistency', 'frechet', 'recall', 'nfe')}))
  return lines


def _table_of(lines: Sequence[Mapping[str, Any]], names: Sequence[str], shown: Sequence[str]) -> list[str]:
  cells = [(*(line[k] for k in names), *(f'{line[k]:.3g}' for k in shown)) for line in lines]
  return table((*names, *shown), cells)


if __name__ == '__main__':
  main()
