"""`diffjax sample --source`: the held-out examples of another run, encoded by its network and drawn by this one's."""

import argparse
from typing import Any

from diffjax.commands.draw import Trained
from diffjax.errors import InputError

__all__ = ['translation']


def translation(options: argparse.Namespace, trained: Trained, labels: Any, ks: Any) -> tuple[Trained, Any, Any]:
  """The run with the generator that translates, what it is given for the samples ks, and their labels.

  Sample k is the k-th held-out example of `options.source`; without --labels it keeps its own where this run has it.

  Raises:
    InputError: --seeds, a run of another process or shape, or a solver with a step without noise.
  """
  import numpy as np

  from diffjax.fingerprint import stamp
  from diffjax.represent import Translated
  from diffjax.represent.encoder import check_noisy
  from diffjax.runs import directory, examples
  from diffjax.runs.experiment import build

  if options.seeds is not None:
    raise InputError(f'source: got {options.source} and seeds {options.seeds!r}; allowed: --n')
  denoise, process, config = directory.load(options.source)
  other, mine = build(config), trained.experiment
  if other.shape != mine.shape or not np.allclose(stamp(process), stamp(mine.process)):
    raise InputError(f'source: got {options.source}, a run of another process or shape; allowed: those of the run')
  solver = trained.generator.solver
  check_noisy(solver)
  source = examples.dataset(other, config.evaluation.split)
  taken = source.take(ks % source.size)
  own = taken['cond'] if other.classes else None
  if options.labels is None and mine.classes and own is not None and max(own) < mine.classes:
    labels = own
  generator = Translated(denoise, trained.denoise, solver)
  return trained._replace(generator=generator), dict(x=taken['x'], source=own, target=labels), labels
