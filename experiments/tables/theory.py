"""What theory says of diffusion models against what is measured: each row a formula, a figure and a bound.

    python -m experiments.tables.theory [--scale=exact|digits|paper] [--workdir=runs/demo]

exact   all rows on Gaussians, mixtures and least squares, in closed form or float64, in under two minutes
digits  which law explains a trained run, time by time: isotropic, Gaussian, 16 axes, 10 components, the examples
paper   what the papers print
"""

import argparse
import time

from experiments.tables.theory_paths import paths
from experiments.tables.theory_rates import rates
from experiments.tables.theory_scores import explained_run, scores

__all__ = ['main']

PRINTED = """\
| paper | printed |
|---|---|
| An Overview of Diffusion Models (2404.07771) | a score learned from n points in d dimensions: n^(-2/(d+5)) for any D |
| Stochastic Interpolants (2303.08797) | likelihood is controlled by the drift's error for SDEs alone |
| Closing the ODE-SDE gap (2311.15996) | W2(ODE, SDE) is bounded by the Fokker-Planck residual |
| Slight Corruption in Pre-training Data (2405.20494) | over 50 conditional models, slightly corrupted ones are better |
| Images Like Painters (2303.02490) | early perturbations change a picture more than late ones |
| Gaussian score approximation (2412.09726) | a Gaussian explains the learned score at high noise, first in training |
| RS2 (2305.18424) | random subsets of 10% an epoch: up to 29% more accurate than pruning |"""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--workdir', default='runs/demo', help='the run, for --scale=digits')
  options = parser.parse_args()
  if options.scale == 'paper':
    print(PRINTED)
  elif options.scale == 'digits':
    _digits(options.workdir)
  else:
    _exact()


def _exact() -> None:
  began = time.perf_counter()
  rows = [*rates(), *paths(), *scores()]
  print('| paper | what | formula | measured | bound | met |\n|---|---|---|---|---|---|')
  for row in rows:
    said, measured = ('-' if value != value else f'{value:.4g}' for value in (row.said, row.measured))
    print(f'| {row.paper} | {row.what} | {said} | {measured} | {row.bound} | '
          f'{"yes" if row.met else "NO"} |')  # fmt: skip
  print(f'\n{sum(row.met for row in rows)} of {len(rows)} met, {time.perf_counter() - began:.0f} s')


def _digits(workdir: str) -> None:
  found = explained_run(workdir)
  names = list(found[0][2].share)
  print('| t | sigma | ' + ' | '.join(names) + ' | best | by |\n|' + '---|' * (len(names) + 4))
  for t, sigma, told in found:
    shares = ' | '.join(f'{told.share[name]:.3f}' for name in names)
    print(f'| {t:.2f} | {sigma:.2f} | {shares} | {told.best} | {told.margin:.3f} |')


if __name__ == '__main__':
  main()
