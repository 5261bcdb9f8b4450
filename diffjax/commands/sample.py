"""diffjax sample."""

import argparse
from collections.abc import Sequence
from typing import Any

from diffjax.commands.draw import draw, picture, sampler, write_npz

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Draw samples from a checkpoint of a run with the solver, steps and guidance scale of its config, or others.

Sample k depends on the seed and k alone, whatever the batch or mesh. Writes OUT.npz (samples, labels) and OUT.png."""


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument('--labels', metavar='0,1,2', help='the classes to draw, in order and over again; all by default')
  parser.add_argument('--n', type=int, help='how many samples; one a label by default')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--step', type=int, help='the checkpoint to take; the newest by default')
  parser.add_argument('--solver', metavar='FILE', help="a solver that diffjax search wrote; the config's by default")
  parser.add_argument('--out', metavar='PATH', help='where to write, without suffix; WORKDIR/drawn by default')


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Draw samples and write them with a picture."""
  from diffjax import run as runs

  config = runs.read_config(options.workdir)
  labels = None if options.labels is None else _labels(options.labels, config.data.classes)
  import numpy as np
  from etils import epath

  what, denoise, solver, mesh = sampler(options.workdir, overrides, options.step, options.solver)
  classes = what.classes
  if classes and labels is None:
    labels = np.arange(classes)
  n = options.n if options.n is not None else (10 if labels is None else len(labels))
  if n < 1:
    raise ValueError(f'n: got {n}; allowed: at least 1')
  labels = None if labels is None else np.resize(labels, n).astype(np.int32)
  drawn = draw(what, denoise, solver, mesh, n, labels, options.seed)
  out = options.out or f'{options.workdir}/drawn'
  out = out.removesuffix('.npz').removesuffix('.png')
  write_npz(f'{out}.npz', drawn, labels)
  picture(f'{out}.png', drawn, labels)
  c = what.config.sampling
  leap = f' from sigma / alpha <= {c.teleport:g} on' if c.teleport else ''
  name = options.solver or f'{c.solver.name}{leap}'
  print(f'{n} samples, {name}, {solver.nfe} evaluations, scale {c.scale:g}: {epath.Path(out)}.npz and .png')


def _labels(text: str, classes: int) -> Any:
  import numpy as np

  allowed = f'0 to {classes - 1}, separated by commas' if classes else 'none, this run has no labels'
  try:
    labels = np.array([int(part) for part in text.split(',')], np.int32)
  except ValueError:
    raise ValueError(f'labels: got {text!r}; allowed: {allowed}') from None
  wrong = labels[(labels < 0) | (labels >= classes)]
  if len(wrong):
    raise ValueError(f'labels: got {wrong[0]}; allowed: {allowed}')
  return labels
