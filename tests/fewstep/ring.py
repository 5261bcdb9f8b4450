"""`experiments.ring` by earlier signatures."""

from experiments import ring as bench
from experiments.ring import STD, drawn, edm, even, parts, ring, state_of

__all__ = ['STD', 'drawn', 'edm', 'even', 'figures', 'parts', 'ring', 'state_of', 'trained']


def trained(method, target, steps, *, batch=512, seed=0, decay=0.999):
  return bench.trained(method, target, steps, batch=batch, seed=seed, decay=decay), None


def figures(target, x, seed=11):
  return bench.figures(target, x, seed=seed)._asdict()
