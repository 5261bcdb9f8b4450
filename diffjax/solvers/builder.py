"""Writing a table the way a paper writes its algorithm: rows of named registers."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.contracts import Time
from diffjax.errors import InputError
from diffjax.solvers.table import Rows, Table

__all__ = ['TableBuilder', 'Combo', 'History']


class Combo:
  """A linear combination of registers and of the row's x0, eps, 1 and z; coefficients are numbers or arrays."""

  def __init__(self, terms: dict[str, Any]):
    self.terms = terms

  def __add__(self, other: 'Combo | float') -> 'Combo':
    other = other if isinstance(other, Combo) else Combo({'1': other})
    names = {**self.terms, **other.terms}
    return Combo({n: self.terms.get(n, 0.0) + other.terms.get(n, 0.0) for n in names})

  __radd__ = __add__

  def __mul__(self, scale: Any) -> 'Combo':
    return Combo({n: scale * c for n, c in self.terms.items()})

  __rmul__ = __mul__
  __array_ufunc__ = None  # an array on the left hands the product to __rmul__

  def __truediv__(self, scale: Any) -> 'Combo':
    return self * (1.0 / scale)

  def __neg__(self) -> 'Combo':
    return self * -1.0

  def __sub__(self, other: 'Combo | float') -> 'Combo':
    return self + (-other)

  def __rsub__(self, other: float) -> 'Combo':
    return -self + other


class TableBuilder:
  """Registers by name, and rows in the order in which they run.

  `table.x0`, `table.eps`, `table.one` and `table.z` are the prediction of the row being written, the constant and its
  noise; every register is an attribute that stands for its value before the row.
  """

  def __init__(self, *registers: str):
    if not registers or registers[0] != 'x':
      raise InputError(f"registers: got {registers}; allowed: 'x' first, then any other names")
    self._registers = registers
    self._rows: list[tuple[Any, dict[str, Combo], bool]] = []
    for name in (*registers, 'x0', 'eps', 'z'):
      setattr(self, name, Combo({name: 1.0}))
    self.one = Combo({'1': 1.0})

  def __getattr__(self, name: str) -> Combo:  # only reached for names never set
    raise AttributeError(f'table has no register {name!r}; it has {", ".join(self._registers)}')

  def row(self, t: Time, evaluated: bool = True, **after: Combo) -> None:
    """A row evaluated at (x, t), or not evaluated; registers that are not named keep their value."""
    unknown = set(after) - set(self._registers)
    if unknown:
      raise InputError(f'register: got {sorted(unknown)}; allowed: {", ".join(self._registers)}')
    self._rows.append((t, after, evaluated))

  def history(self, name: str, depth: int, now: Combo) -> 'History':
    """The value `now` of this row with those of up to `depth` rows before it, from the registers name1, name2, ...

    The registers are added to the table where it has none of these names yet.
    """
    names = tuple(f'{name}{j}' for j in range(1, depth + 1))
    for register in names:
      if register not in self._registers:
        self._registers = (*self._registers, register)
        setattr(self, register, Combo({register: 1.0}))
    return History(names, (now, *(getattr(self, register) for register in names)))

  def done(self) -> Table:
    """The table.

    Raises:
      InputError: a coefficient is not finite (a noise-form step from alpha = 0, say); the row is named.
    """
    names = (*self._registers, 'x0', 'eps', '1', 'z')
    keep = {name: Combo({name: 1.0}) for name in self._registers}
    cells = [[[_of(after.get(r, keep[r]), n) for n in names] for r in self._registers] for _, after, _ in self._rows]
    t = [t for t, _, _ in self._rows]
    evaluated = np.array([evaluated for _, _, evaluated in self._rows])
    traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((_arrays(cells), t)))
    weights, t = _stack(cells, jnp if traced else np), (jnp if traced else np).asarray(t)
    if not traced:
      for i in np.flatnonzero(~np.isfinite(weights.reshape(len(evaluated), -1)).all(1)):
        raise InputError(f'table: row {i} at t = {t[i]:.6g} has a coefficient that is not finite; this form of the '
                         'method cannot step from or to it (alpha = 0 or sigma = 0)')  # fmt: skip
    stochastic = any('z' in combo.terms for _, after, _ in self._rows for combo in after.values())
    rows = Rows(t, weights, evaluated, np.arange(len(evaluated), dtype=np.int32))
    return Table(rows, self._registers, stochastic=stochastic, skips=not evaluated.all())


@dataclass(frozen=True)
class History:
  """A quantity at the row being written and at the rows before it: h[j] is its value j rows back, h[0] the one now.

  Attributes:
    names: the registers that hold the earlier values, the latest first.
    values: the value now, then the registers.
  """

  names: tuple[str, ...]
  values: tuple[Combo, ...]

  def __getitem__(self, rows_back: Any) -> Any:
    return self.values[rows_back]

  def shifted(self) -> dict[str, Any]:
    """What a row assigns so that the next one can look back: each value goes one register on, the oldest is dropped."""
    return dict(zip(self.names, self.values, strict=False))


def _of(combo: Combo, name: str) -> Any:
  return combo.terms.get(name, 0.0)


def _arrays(cells: list) -> list:
  """What is no plain number: of thousands of coefficients most are."""
  return [c for row in cells for register in row for c in register if not isinstance(c, float)]


def _stack(cells: list, xp: Any) -> Any:
  """(n, q, q + 4[, ...]): numbers broadcast against element-wise coefficients."""
  flat = [c for row in cells for register in row for c in register]
  shape = np.broadcast_shapes(*{np.shape(c) for c in _arrays(cells)})
  if xp is np and not shape:
    stacked = np.array(flat)  # thousands of numbers
  else:
    stacked = xp.stack([xp.broadcast_to(xp.asarray(c), shape) for c in flat])
  return stacked.reshape(len(cells), len(cells[0]), len(cells[0][0]), *shape)
