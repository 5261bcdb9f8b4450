"""Evolution over times and choices of a solver.

arXiv:2309.10438 (times), arXiv:2312.07243 (choices)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffjax import noise_levels
from diffjax.errors import InputError
from diffjax.process import Process
from diffjax.search.population import population
from diffjax.search.unified import BASELINES, Choice, usf
from diffjax.solvers import Table, grids
from diffjax.solvers.tables.adams import FORMS, Form

__all__ = ['Found', 'Space', 'evolve']

Genes = tuple[tuple[int, ...], tuple[Choice, ...]]  # places of the n - 1 inner times among the knots, a choice a step


class Found(NamedTuple):
  """The best table, its error, times and choices; the best error after each generation, and of the baselines."""

  table: Table
  error: float
  times: np.ndarray
  choices: tuple[Choice, ...]
  history: tuple[float, ...]
  baselines: dict[str, float]


class Space(NamedTuple):
  """What is searched over, for n evaluations.

  Attributes:
    knots: decreasing times; a grid is the first, the last and n - 1 of those between.
    builder: (process, ts) -> Table, to search times alone; None searches the choices of `usf` too.
    orders, forms, correctors, scalings: allowed values of a choice.
  """

  process: Process
  n: int
  knots: Any
  builder: Callable[[Process, Any], Table] | None = None
  orders: tuple[int, ...] = (1, 2, 3)
  forms: tuple[Form, ...] = FORMS
  correctors: tuple[bool, ...] = (False, True)
  scalings: tuple[str, ...] = ('exact', 'b2')

  def times(self, genes: Genes) -> np.ndarray:
    """The grid."""
    knots = np.asarray(self.knots, np.float64)
    return knots[[0, *genes[0], len(knots) - 1]]

  def table(self, genes: Genes) -> Table:
    """What the genes stand for."""
    ts = self.times(genes)
    return usf(self.process, ts, genes[1]) if self.builder is None else self.builder(self.process, ts)

  def draw(self, rng: np.random.Generator) -> Genes:
    """Any member of the space."""
    inner = rng.choice(np.arange(1, len(self.knots) - 1), self.n - 1, replace=False)
    return _sorted(inner), tuple(self._choice(rng) for _ in range(self.n * (self.builder is None)))

  def mutate(self, genes: Genes, rng: np.random.Generator, rate: float, step: int = 0) -> Genes:
    """Each gene anew with this probability; a time moves to an unused knot, at most `step` places if that is not 0."""
    inner = list(genes[0])
    for k in np.flatnonzero(rng.random(len(inner)) < rate):
      reach = np.arange(1, len(self.knots) - 1) if step == 0 else inner[k] + np.arange(-step, step + 1)
      free = np.setdiff1d(reach[(reach > 0) & (reach < len(self.knots) - 1)], inner)
      if len(free):
        inner[k] = rng.choice(free)
    return _sorted(inner), tuple(self._choice(rng, c) if rng.random() < rate else c for c in genes[1])

  def cross(self, a: Genes, b: Genes, rng: np.random.Generator) -> Genes:
    """Each gene from one of the two; a time that both gave is filled up from those left out."""
    inner = np.where(rng.random(self.n - 1) < 0.5, a[0], b[0]) if self.n > 1 else np.array([], int)
    inner = np.unique(inner)
    spare = np.setdiff1d(np.union1d(a[0], b[0]), inner)
    inner = np.concatenate([inner, rng.permutation(spare)[: self.n - 1 - len(inner)]])
    return _sorted(inner), tuple(p if rng.random() < 0.5 else q for p, q in zip(a[1], b[1], strict=True))

  def baselines(self) -> dict[str, Genes]:
    """Published methods on published grids, snapped to the knots."""
    knots, out = np.asarray(self.knots, np.float64), {}
    methods = {'': lambda n: []} if self.builder is not None else BASELINES
    for name in ('uniform', 'quadratic', 'uniform_lam', 'karras'):
      ts = getattr(grids, name)(self.process, self.n, to_zero=bool(knots[-1] == 0))
      for method, choices in methods.items():
        out[f'{method} {name}'.strip()] = (_snapped(knots, ts[1:-1]), tuple(choices(self.n)))
    return out

  def _choice(self, rng: np.random.Generator, of: Choice | None = None) -> Choice:
    """A choice drawn at random, or `of` with one of its entries drawn anew."""
    options: dict[str, Sequence] = dict(
      order=self.orders, form=self.forms, corrector=self.correctors, scaling=self.scalings
    )
    drawn = {field: values[int(rng.integers(len(values)))] for field, values in options.items()}
    if of is None:
      return Choice(**drawn)
    field = list(options)[rng.integers(len(options))]
    return of._replace(**{field: drawn[field]})


def evolve(
  space: Space,
  score: Callable[[Table], Any],
  size: int = 50,
  generations: int = 10,
  *,
  parents: int = 10,
  rate: float = 0.1,
  seed: int = 0,
  progress: Callable[[int, float], None] | None = None,
) -> Found:
  """The best of size x generations tables, each tried once; never worse than the best of the first generation.

  Half of the first generation are published methods on published grids and mutations of them, the other half is drawn
  at random. Each later one mutates (half of it) and crosses (three tenths) the best so far, and draws the rest.

  Args:
    space: what is searched.
    score: population -> errors (P,), smaller is better: `lambda tables: errors(denoise, tables, x, reference)`. All
      populations have one size, so it compiles once.
    size: of the population.
    generations: how often the population is renewed.
    parents: how many of the best have offspring.
    rate: probability with which a gene mutates.
    seed: of the search.
    progress: called with the generation and its best error.

  Raises:
    InputError: knots that are too few or do not fall, or numbers that are not positive.
  """
  _check(space, size, generations, parents, rate)
  rng, known, history = np.random.default_rng(seed), {}, []
  baselines = space.baselines()
  young = _first(space, list(dict.fromkeys(baselines.values())), size, rate, rng)
  for generation in range(generations):
    if generation:
      best = sorted(known, key=known.__getitem__)[:parents]
      young = _offspring(space, best, set(known), size, rate, rng)
    known |= dict(zip(young, _scored(space, young, score, size), strict=True))
    history.append(min(known.values()))
    if progress:
      progress(generation, history[-1])
  best = min(known, key=known.__getitem__)
  told = {name: known[genes] for name, genes in baselines.items() if genes in known}
  return Found(space.table(best), known[best], space.times(best), best[1], tuple(history), told)


def _scored(space: Space, young: list[Genes], score: Callable, size: int) -> list[float]:
  """Errors of at most `size` candidates; what is not finite is worst. The first fills up the population."""
  rows = len(space.table(young[0]).rows.evaluated)
  tables = [space.table(genes) for genes in young]
  widest = _registers(space)
  stacked = population(tables + tables[:1] * (size - len(tables)), rows, widest)
  found = np.asarray(score(stacked), np.float64)[: len(young)]
  return np.where(np.isfinite(found), found, np.inf).tolist()


def _registers(space: Space) -> int:
  """The most registers that a table of the space has."""
  if space.builder is not None:
    return len(space.table(next(iter(space.baselines().values()))).registers)
  lags = max(space.orders) - 1 + any(space.correctors)
  return 1 + any(space.correctors) + lags * len(set(space.forms))


def _first(space: Space, known: list[Genes], size: int, rate: float, rng: np.random.Generator) -> list[Genes]:
  """Known methods, mutations of them up to half the size, then random ones."""
  young = dict.fromkeys(known[:size])
  for tried in range(20 * size):
    if len(young) == size:
      break
    half = len(young) < size // 2
    young[space.mutate(known[tried % len(known)], rng, rate) if half else space.draw(rng)] = None
  return list(young)


def _offspring(
  space: Space, best: list[Genes], known: set[Genes], size: int, rate: float, rng: np.random.Generator
) -> list[Genes]:
  """New candidates only: what was tried before is drawn again, up to a limit in case the space is exhausted."""
  young: dict[Genes, None] = {}
  for _ in range(20 * size):
    if len(young) == size:
      break
    u, (a, b) = rng.random(), rng.integers(len(best), size=2)
    if u < 0.5:
      child = space.mutate(best[a], rng, max(rate, 1 / space.n), step=int(rng.choice([0, 1, 3, 10])))
    else:
      child = space.cross(best[a], best[b], rng) if u < 0.8 and a != b else space.draw(rng)
    if child not in known:
      young[child] = None
  return list(young) or [best[0]]


def _sorted(inner: Any) -> tuple[int, ...]:
  return tuple(sorted(int(k) for k in inner))


def _snapped(knots: np.ndarray, ts: np.ndarray) -> tuple[int, ...]:
  """The nearest knot to each time that leaves room for the times before and after it."""
  chosen, last = [], 0
  for i, t in enumerate(ts):
    room = np.arange(last + 1, len(knots) - 1 - (len(ts) - 1 - i))
    last = int(room[np.argmin(np.abs(knots[room] - t))])
    chosen.append(last)
  return tuple(chosen)


def _check(space: Space, size: int, generations: int, parents: int, rate: float) -> None:
  knots = noise_levels.checked(space.process, space.knots)
  if not 1 <= space.n < len(knots):
    raise InputError(f'n: got {space.n}; allowed: 1 to the {len(knots) - 1} steps between the knots')
  for field, value in (('size', size), ('generations', generations), ('parents', parents)):
    if value < 1:
      raise InputError(f'{field}: got {value}; allowed: a whole number of at least 1')
  if not 0 < rate <= 1:
    raise InputError(f'rate: got {rate}; allowed: above 0, up to 1')
  for field, values in (('orders', space.orders), ('forms', space.forms), ('correctors', space.correctors),
                        ('scalings', space.scalings)):  # fmt: skip
    if not values:
      raise InputError(f'{field}: got none; allowed: at least one value')
