"""What a data set is: random access to examples {'x', 'cond' and what else there is}, and the checks they pass."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffjax.errors import InputError

__all__ = ['KINDS', 'Arrays', 'DataSet', 'check', 'misnamed', 'scaled']

KINDS = ('images', 'latents', 'points', 'pairs', 'modalities', 'tokens', 'series', 'molecules')


@dataclasses.dataclass(frozen=True)
class Arrays:
  """A source held in memory: x (n, ...), or a dict of such modalities, cond (n,) int32 or None, and others by name."""

  x: Any
  cond: np.ndarray | None = None
  others: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(jax.tree.leaves(self.x)[0])

  def __getitem__(self, index) -> dict[str, np.ndarray]:
    """Example `index`, or a batch where `index` is an array."""
    example = {'x': jax.tree.map(lambda x: x[index], self.x)}
    if self.cond is not None:
      example['cond'] = self.cond[index]
    return example | {name: value[index] for name, value in self.others.items()}


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A set of examples, with the shape of one and the number of classes.

  `source` (anything with len and [i] -> {'x', 'cond'}), the shape of one x and the number of classes.

  x is float32, an (H, W, C) image in [-1, 1] (a latent: of any range) or a (d,) vector; cond is an int32 label in
  0..classes-1 and is missing where `classes` is None. A source that has `__getitems__(indices)` is read many examples
  at a time. Several modalities are held in memory: x and `shape` are then dicts of their names. `names` are those of
  the classes, in the order of the labels, where they have any.

  Attributes:
    kind: one of KINDS, by which evaluation chooses its figures; from the shape where it is not given.
    others: the shapes of what an example holds beside x and cond, float32: {'source': (8, 8, 1)}, x's partner.
    vocabulary: of tokens: x is (L,) int32 in 0..vocabulary-1; None for numbers.
    levels: how many values a component of x has, evenly on [-1, 1]; None where it is continuous or not known.
    law: the exact law of x where it is known, with what it can say (`log_prob`, `entropy`, `means`, `covariances` ...).
  """

  name: str
  source: Any
  shape: Any
  classes: int | None = None
  names: tuple[str, ...] | None = None
  kind: str = ''
  others: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
  vocabulary: int | None = None
  law: Any = None
  levels: int | None = None

  def __post_init__(self):
    object.__setattr__(self, 'kind', self.kind or _kind(self.shape, self.others, self.vocabulary))
    if self.kind not in KINDS:
      raise InputError(f'{self.name}: kind is {self.kind!r}, allowed: {", ".join(KINDS)}')

  @property
  def size(self) -> int:
    """The number of examples."""
    return len(self.source)

  @property
  def keys(self) -> tuple[str, ...]:
    """What a batch holds: 'x', 'cond' where there are classes, and the names of `others`."""
    return ('x', *(() if self.classes is None else ('cond',)), *self.others)

  @property
  def dtype(self) -> Any:
    """Of x: int32 for tokens, float32 for all else."""
    return np.dtype(np.float32 if self.vocabulary is None else np.int32)

  @property
  def nbytes(self) -> int:
    """Bytes of all x and all others together, in 32 bits each."""
    shapes = [*(self.shape.values() if isinstance(self.shape, dict) else [self.shape]), *self.others.values()]
    return 4 * self.size * sum(map(math.prod, shapes))

  def take(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """The examples `indices` stacked: x (b, ...) float32, cond (b,) int32 and what else there is.

    Raises:
      InputError: for an example of another shape, not finite, out of range or with a label that does not exist.
    """
    if isinstance(self.source, Arrays):
      return self.source[np.asarray(indices)]
    indices = [int(i) for i in indices]
    read = getattr(self.source, '__getitems__', None)
    examples = read(indices) if read else [self.source[i] for i in indices]
    wanted = {'x': self.shape, **self.others}
    for i, example in zip(indices, examples, strict=True):
      for key, shape in wanted.items():
        if np.shape(example[key]) != shape:
          raise InputError(f'{self.name}, example {i}: {key} has shape {np.shape(example[key])}, must be {shape}')
    batch: dict[str, np.ndarray] = {'x': np.stack([e['x'] for e in examples], dtype=self.dtype)}
    if self.classes is not None:
      batch['cond'] = np.asarray([e['cond'] for e in examples], np.int32)
    check(self.name, batch['x'], batch.get('cond'), self.classes, indices)
    return batch | {key: np.stack([e[key] for e in examples], dtype=np.float32) for key in self.others}

  def loaded(self, chunk: int = 1024) -> 'DataSet':
    """The same set read once into one contiguous array; itself where it is one already."""
    if isinstance(self.source, Arrays):
      return self
    whole: dict[str, np.ndarray] = {k: np.empty((self.size, *s), np.float32) for k, s in self.others.items()}
    whole['x'] = np.empty((self.size, *self.shape), self.dtype)
    if self.classes is not None:
      whole['cond'] = np.empty(self.size, np.int32)
    for i in range(0, self.size, chunk):
      part = self.take(range(i, min(i + chunk, self.size)))
      for key, values in whole.items():
        values[i : i + chunk] = part[key]
    x, cond = whole.pop('x'), whole.pop('cond', None)
    return dataclasses.replace(self, source=Arrays(x, cond, whole))

  def arrays(self) -> dict[str, np.ndarray]:
    """All examples in order: {'x': (n, ...), 'cond': (n,), and what else there is}."""
    return self.loaded().source[:]


def _kind(shape: Any, others: Mapping[str, Any], vocabulary: int | None) -> str:
  """What a set of this shape is, where it does not say."""
  if isinstance(shape, dict):
    return 'modalities'
  if vocabulary is not None:
    return 'tokens'
  if 'source' in others:
    return 'pairs'
  return 'images' if len(shape) == 3 else 'points'


def misnamed(where: str, found: Sequence[str], allowed: Sequence[str]) -> InputError:
  """The refusal of classes whose names are not those that were stated, or of another number or order."""

  def shown(names: Sequence[str], other: Sequence[str]) -> str:
    these = [name for name in names if name not in other] or list(names)
    return ', '.join(map(repr, these[:4])) + (f' and {len(these) - 4} more' if len(these) > 4 else '')

  got, states = shown(found, allowed) or 'none', shown(allowed, found)
  return InputError(f'{where}: got classes named {got}; allowed: {states}, as data.names states in this order')


def scaled(x: np.ndarray, levels: int) -> np.ndarray:
  """Integers 0..levels to float32 in [-1, 1]: 2 x / levels - 1."""
  return np.asarray(x, np.float32) * np.float32(2 / levels) - 1


def check(
  name: str,
  x: np.ndarray,
  cond: np.ndarray | None = None,
  classes: int | None = None,
  indices: Sequence[int] | None = None,
  bounded: bool = True,
) -> None:
  """Refuse what training would only choke on later: not finite, images outside [-1, 1], labels outside 0..classes-1.

  Not `bounded`: latents, of any finite value.

  Raises:
    InputError: names the set, the first offending example, its value and what is allowed.
  """

  def refuse(bad, values, field, allowed):
    where = np.unravel_index(np.argmax(bad), bad.shape)
    row = int(where[0]) if indices is None else indices[int(where[0])]
    raise InputError(f'{name}, example {row}: {field} has the value {values[where]}, allowed: {allowed}')

  if not np.isfinite(x).all():
    refuse(~np.isfinite(x), x, 'x', 'finite numbers')
  if bounded and x.ndim == 4 and x.size and (x.min() < -1 or x.max() > 1):
    refuse((x < -1) | (x > 1), x, 'x', '-1 to 1 (images; give uint8 for 0 to 255)')
  if cond is not None and classes is not None and cond.size and (cond.min() < 0 or cond.max() >= classes):
    refuse((cond < 0) | (cond >= classes), cond, 'label', f'0 to {classes - 1}')
