"""Toy molecules: point clouds of atoms with known bonds, whose law no rotation or reflection changes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.options import among, check_made, number
from diffjax.data.seeds import of_split
from diffjax.errors import InputError

__all__ = ['Bonds', 'gyration', 'molecules']

TYPES = ('H', 'C', 'N', 'O')
LENGTHS = dict(C=1.09, N=1.01, O=0.96)  # of a bond to H, in angstroms
DEVIATION = 0.02  # of a bond length
ANGLE, BEND = 104.5, 2.0  # of water, and its deviation, in degrees
PYRAMID = 107.0  # between two bonds of ammonia, in degrees
FORMULAS = dict(water='OHH', ammonia='NHHH', methane='CHHHH')


def molecules(
  split: str,
  *,
  formulas: Sequence[str] = tuple(FORMULAS),
  stretch: float = 0.0,
  source: str | None = None,
  n: int = 2**13,
  seed: int = 0,
) -> DataSet:
  """Molecules (atoms, 3 + 4): positions in angstroms about their mean, and one-hot types H, C, N, O; label in 'cond'.

  The heavy atom comes first, its hydrogens after it. Each bond has its own length N(l, .02^2), l = .96 in water, 1.01
  in ammonia, 1.09 in methane, independent of the others; the angle of water is N(104.5, 2^2) degrees, those of ammonia
  are 107, of methane acos(-1/3). The whole is turned by a uniform rotation. `formulas` are equally likely; where they
  differ in atoms, rows of zeros fill the smaller ones, and 'mask' (atoms,) is 1 for an atom and 0 for those.

  Args:
    split: train or test.
    formulas: some of water, ammonia, methane, in the order of their labels.
    stretch: a molecule is exp(stretch u) times as large, u uniform on [-1, 1].
    source: 'gyration' tells the radius of gyration of x as 'source' (1,): the root of the mean square distance of the
      atoms to their mean.
    n: molecules, independent.
    seed: of the molecules.
  """
  check_made(split, n, seed)
  if not formulas or len(set(formulas)) < len(formulas) or not set(formulas) <= set(FORMULAS):
    raise InputError(f'data.formulas: got {formulas!r}; allowed: some of {", ".join(FORMULAS)}, each once')
  number('data.stretch', stretch, 0)
  among('data.source', source, (None, 'gyration'))
  rng = of_split(seed, 'molecules', split)
  label = rng.randint(len(formulas), size=n)
  atoms = max(len(FORMULAS[name]) for name in formulas)
  x = np.zeros((n, atoms, 3 + len(TYPES)))
  for k, name in enumerate(formulas):
    formula, rows = FORMULAS[name], np.flatnonzero(label == k)
    lengths = LENGTHS[formula[0]] + DEVIATION * rng.standard_normal((len(rows), len(formula) - 1, 1))
    places = np.concatenate([np.zeros((len(rows), 1, 3)), lengths * _directions(name, rng, len(rows))], 1)
    places = (places - places.mean(1, keepdims=True)) @ _rotations(rng, len(rows))
    x[rows, : len(formula), :3] = places
    x[rows, : len(formula), 3:] = np.eye(len(TYPES))[[TYPES.index(atom) for atom in formula]]
  if stretch:
    x[..., :3] *= np.exp(stretch * rng.uniform(-1, 1, (n, 1, 1)))
  others = {'mask': x[:, :, 3:].sum(-1)}
  if source:
    others['source'] = gyration(x, others['mask'])[:, None]
  others = {name: value.astype(np.float32) for name, value in others.items()}
  arrays = Arrays(x.astype(np.float32), label.astype(np.int32), others)
  law = None if stretch else Bonds(tuple(FORMULAS[name] for name in formulas))
  return DataSet('molecules', arrays, x.shape[1:], len(formulas), tuple(formulas), kind='molecules',
                 others={name: value.shape[1:] for name, value in others.items()}, law=law)  # fmt: skip


def gyration(x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """The radius of gyration (n,) of clouds (n, atoms, 3 + any), of the rows whose mask (n, atoms) is 1."""
  there = np.ones(x.shape[:2]) if mask is None else mask
  share = there / there.sum(1, keepdims=True)
  away = x[..., :3] - np.einsum('na,nai->ni', share, x[..., :3])[:, None]
  return np.sqrt(np.einsum('na,nai->n', share, away**2))


@dataclasses.dataclass(frozen=True)
class Bonds:
  """What makes a molecule of these `formulas`, such as 'OHH'."""

  formulas: tuple[str, ...]

  def valid(self, x: np.ndarray, near: float = 0.1) -> np.ndarray:
    """Whether each of x (n, atoms, 3 + 4) has the atoms of a formula and all bonds within `near` angstroms of theirs.

    A row is an atom where one of its types is above 1/2, of the greatest type. Bonds are those of each hydrogen to the
    heavy atom.
    """
    x = np.asarray(x, np.float64)
    kinds = np.where(x[..., 3:].max(-1) > 0.5, x[..., 3:].argmax(-1), -1)
    result = np.zeros(len(x), bool)
    for formula in self.formulas:
      wanted = [formula.count(atom) for atom in TYPES]
      right = np.all([(kinds == k).sum(1) == count for k, count in enumerate(wanted)], axis=0)
      for i in np.flatnonzero(right):
        heavy, light = x[i, kinds[i] > 0, :3], x[i, kinds[i] == 0, :3]
        result[i] = (np.abs(np.linalg.norm(light - heavy, axis=-1) - LENGTHS[formula[0]]) < near).all()
    return result


def _directions(name: str, rng: np.random.RandomState, n: int) -> np.ndarray:
  """Unit vectors (n, hydrogens, 3) from the heavy atom."""
  if name == 'water':
    half = np.deg2rad(ANGLE + BEND * rng.standard_normal(n)) / 2
    zero = np.zeros(n)
    return np.stack([np.stack([sign * np.sin(half), np.cos(half), zero], -1) for sign in (1, -1)], 1)
  if name == 'methane':
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return np.broadcast_to(corners, (n, 4, 3))
  # three bonds at equal angles about an axis: cos(bond, bond) = 1 - 3/2 sin^2(bond, axis)
  sine = np.sqrt((1 - np.cos(np.deg2rad(PYRAMID))) / 1.5)
  turn = 2 * np.pi * np.arange(3) / 3
  corners = np.stack([sine * np.cos(turn), sine * np.sin(turn), np.full(3, np.sqrt(1 - sine**2))], -1)
  return np.broadcast_to(corners, (n, 3, 3))


def _rotations(rng: np.random.RandomState, n: int) -> np.ndarray:
  """Uniform rotations (n, 3, 3): of a normal quaternion, which is uniform on the sphere."""
  w, x, y, z = (q := rng.standard_normal((4, n))) / np.linalg.norm(q, axis=0)
  rows = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
  return np.moveaxis(np.array(rows), -1, 0)
