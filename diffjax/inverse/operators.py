"""What is seen of an example: linear operators A with their adjoints, pseudo-inverses and closed-form solves.

Every posterior method of this room asks an operator for four things alone: A x, A^T y, A^+ y and (a + b A A^T)^{-1} y.
Where A A^T is diagonal in a known basis all four are closed forms; else the last two are solved by conjugate gradients.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.tree_util import Partial

from diffjax.errors import InputError
from diffjax.inverse.solving import conjugate_gradients
from diffjax.process import expand
from diffjax.pytree import PyTree

__all__ = ['Operator', 'compose', 'linear', 'mask', 'matrix', 'projection']

Shape = tuple[int, ...]
KEPT = ('left', 'top', 'outside', 'random')
RANK = 1e-6  # eigenvalues of A A^T below this share of the largest are 0
dot = partial(jnp.matmul, precision='highest')  # accelerators multiply float32 in tf32 or bfloat16 unless told


class Operator(PyTree):
  """A linear map of examples, x (B, *shape) -> y (B, *out); made by the functions of this page.

  Attributes:
    shape: of one x.
    out: of one y.
  """

  shape: Shape = struct.field(pytree_node=False, kw_only=True)
  out: Shape = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Array) -> Array:
    """A x.

    Raises:
      InputError: x is of another shape.
    """
    check(x, self.shape, 'x')
    return self.forward(x)

  def adjoint(self, y: Array) -> Array:
    """A^T y; InputError where y is of another shape."""
    check(y, self.out, 'y')
    return self.backward(y)

  def pinv(self, y: Array) -> Array:
    """A^+ y, the x of least norm with A x nearest to y."""
    check(y, self.out, 'y')
    gram = lambda x: self.backward(self.forward(x))  # noqa: E731
    return conjugate_gradients(gram, self.backward(y), self.steps)

  def solve(self, y: Array, a: Any, b: Any) -> Array:
    """(a + b A A^T)^{-1} y; a > 0 a number, one a sample (B,), or like y; b >= 0 a number or one a sample."""
    check(y, self.out, 'y')
    a, b = expand(a, y).astype(y.dtype), expand(b, y).astype(y.dtype)
    return conjugate_gradients(lambda v: a * v + b * self.forward(self.backward(v)), y, self.steps)

  @property
  def steps(self) -> int:
    """Of conjugate gradients, where they are needed: as many as numbers seen, at most 100."""
    return min(math.prod(self.out), 100)

  def forward(self, x: Array) -> Array:
    """A x, unchecked."""
    raise NotImplementedError

  def backward(self, y: Array) -> Array:
    """A^T y, unchecked."""
    raise NotImplementedError


class Spectral(Operator):
  """An operator whose A A^T has a known basis: `gram` takes y to f(A A^T) y, f elementwise on the eigenvalues."""

  def gram(self, y: Array, f: Callable[[Array], Array]) -> Array:
    raise NotImplementedError

  def pinv(self, y: Array) -> Array:
    check(y, self.out, 'y')

    def inverse(e: Array) -> Array:
      there = e > RANK * jnp.max(e)
      return jnp.where(there, 1 / jnp.where(there, e, 1), 0)

    return self.backward(self.gram(y, inverse))

  def solve(self, y: Array, a: Any, b: Any) -> Array:
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.ndim > 1:  # one for every number seen: no longer diagonal in that basis
      return super().solve(y, a, b)
    check(y, self.out, 'y')
    return self.gram(y, lambda e: 1 / (_over(a, e) + _over(b, e) * e)).astype(y.dtype)


def _over(number: Array, e: Array) -> Array:
  """A number, or one a sample, against eigenvalues that are those of one example."""
  return number.reshape(number.shape + (1,) * e.ndim) if number.ndim else number


def check(values: Array, shape: Shape, field: str) -> None:
  """Raises InputError where these are no examples (B, *shape)."""
  if jnp.shape(values)[1:] != shape or jnp.ndim(values) != len(shape) + 1:
    raise InputError(f'{field}: got shape {jnp.shape(values)}; allowed: (B, {", ".join(map(str, shape))})')


def mask(shape: Shape, keep: Any = 'left', *, share: float = 0.5, seed: int = 0) -> 'Mask':
  """Some elements of x; y is like x, 0 where nothing was seen.

  Args:
    shape: of one example.
    keep: 1 where seen and 0 elsewhere, an array that broadcasts against `shape`, or against (B, *shape); or, of an
      image, the 'left' or 'top' part, what is 'outside' of a box in the middle, or pixels at 'random'.
    share: the part of the pixels that is seen, with a name.
    seed: of 'random'.

  Raises:
    InputError: another name, values that are not 0 and 1, or a share outside (0, 1].
  """
  seen = _named_mask(tuple(shape), keep, share, seed) if isinstance(keep, str) else np.asarray(keep, float)
  if not np.isin(seen, (0, 1)).all():
    raise InputError('keep: got values that are not 0 or 1; allowed: 1 where seen, 0 elsewhere')
  try:
    fits = len(np.broadcast_shapes(seen.shape, tuple(shape))) <= len(shape) + 1
  except ValueError:
    fits = False
  if not fits:
    raise InputError(f'keep: got shape {seen.shape}; allowed: one that broadcasts against {tuple(shape)}')
  return Mask(jnp.asarray(seen, float), shape=tuple(shape), out=tuple(shape))


def _named_mask(shape: Shape, keep: str, share: float, seed: int) -> np.ndarray:
  if keep not in KEPT:
    raise InputError(f'keep: got {keep!r}; allowed: {", ".join(KEPT)}, or an array of 0 and 1')
  if not 0 < share <= 1:
    raise InputError(f'share: got {share}; allowed: above 0, at most 1')
  if len(shape) != 3 and keep != 'random':
    raise InputError(f'keep: got {keep!r} for examples of shape {shape}; allowed there: random, or an array')
  plane = shape[:2] if len(shape) == 3 else shape
  seen = np.zeros(plane)
  if keep == 'random':
    seen.flat[_some(math.prod(plane), share, seed)] = 1
  elif keep == 'outside':
    high, wide = (round(n * math.sqrt(1 - share)) for n in plane)
    top, left = (plane[0] - high) // 2, (plane[1] - wide) // 2
    seen[:] = 1
    seen[top : top + high, left : left + wide] = 0
  else:
    seen[(slice(None), slice(round(plane[1] * share))) if keep == 'left' else slice(round(plane[0] * share))] = 1
  return seen[..., None] if len(shape) == 3 else seen


def _some(n: int, share: float, seed: int) -> np.ndarray:
  return np.random.default_rng(seed).permutation(n)[: max(round(n * share), 1)]


class Mask(Spectral):
  """Made by `mask`."""

  keep: Array

  def forward(self, x: Array) -> Array:
    return x * self.keep.astype(x.dtype)

  def backward(self, y: Array) -> Array:
    return self.forward(y)

  def gram(self, y: Array, f: Callable[[Array], Array]) -> Array:
    return y * f(self.keep)

  def solve(self, y: Array, a: Any, b: Any) -> Array:
    """Elementwise, so that also a may be one for every number."""
    check(y, self.out, 'y')
    return (y / (expand(a, y) + expand(b, y) * self.keep)).astype(y.dtype)


def matrix(shape: Shape, rows: Any) -> 'Dense':
  """Any matrix (m, d) on examples as vectors of d numbers; y (B, m).

  Raises:
    InputError: it is no matrix of as many columns as an example has numbers.
  """
  rows, d = np.asarray(rows, float), math.prod(shape)
  if rows.ndim != 2 or rows.shape[1] != d or not np.isfinite(rows).all():
    raise InputError(f'rows: got shape {rows.shape}; allowed: a finite matrix (m, {d}) for examples of shape {shape}')
  values, basis = np.linalg.eigh(rows @ rows.T)
  arrays = (jnp.asarray(part, float) for part in (rows, basis, np.maximum(values, 0)))
  return Dense(*arrays, shape=tuple(shape), out=rows.shape[:1])


def projection(shape: Shape, rows: int, *, seed: int = 0) -> 'Dense':
  """Random projections, y (B, rows): numbers of a Gaussian matrix of variance 1/d, so that |A x|^2 is rows/d |x|^2.

  Raises:
    InputError: fewer than one row, or more than an example has numbers.
  """
  d = math.prod(shape)
  if not 1 <= rows <= d:
    raise InputError(f'rows: got {rows}; allowed: 1 to {d}, the numbers of an example')
  return matrix(shape, np.random.default_rng(seed).standard_normal((rows, d)) / math.sqrt(d))


class Dense(Spectral):
  """Made by `matrix` and `projection`."""

  rows: Array
  basis: Array
  values: Array

  def forward(self, x: Array) -> Array:
    return dot(x.reshape(len(x), -1), self.rows.T.astype(x.dtype))

  def backward(self, y: Array) -> Array:
    return dot(y, self.rows.astype(y.dtype)).reshape(-1, *self.shape)

  def gram(self, y: Array, f: Callable[[Array], Array]) -> Array:
    basis = self.basis.astype(y.dtype)
    return dot(dot(y, basis) * f(self.values).astype(y.dtype), basis.T)


def linear(fn: Callable[[Array], Array], shape: Shape, adjoint: Callable[[Array], Array] | None = None) -> 'Linear':
  """Any linear function of a batch, x (B, *shape) -> y (B, *out), with its adjoint, by default its transpose.

  It is tried on random numbers once, here. As a pytree (`jax.tree_util.Partial(fn, *arrays)`) its arrays may change
  without another compilation; a plain function is static.

  Raises:
    InputError: fn is not linear, or <A x, y> is not <x, A^T y>.
  """
  shape = tuple(shape)
  x, z = np.random.default_rng(0).standard_normal((2, 2, *shape)).astype(np.float32)
  image = fn(jnp.asarray(x))
  if jnp.ndim(image) < 1 or len(image) != 2:
    raise InputError(f'fn: got an image of shape {jnp.shape(image)} of 2 examples; allowed: the batch first')
  close = partial(np.allclose, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(image))))
  if not (close(fn(2 * x - 3 * z), 2 * image - 3 * fn(z)) and close(fn(jnp.stack([x[0], z[0]]))[0], image[0])):
    raise InputError('fn: got a function that is not linear, example by example; allowed: fn(a x + b z) = a fn(x) + '
                     'b fn(z)')  # fmt: skip
  made = Linear(_tree(fn), None if adjoint is None else _tree(adjoint), shape=shape, out=tuple(image.shape[1:]))
  y = jnp.asarray(np.random.default_rng(1).standard_normal(image.shape), jnp.float32)
  back = made.backward(y)
  if np.shape(back) != x.shape or not np.allclose(np.vdot(image, y), np.vdot(x, back), rtol=1e-3, atol=1e-3 * y.size):
    raise InputError('adjoint: got another map than the adjoint of fn; allowed: <fn(x), y> = <x, adjoint(y)>')
  return made


def _tree(fn: Callable) -> Any:
  return Partial(fn) if jax.tree_util.all_leaves([fn]) else fn


class Linear(Operator):
  """Made by `linear`."""

  fn: Any
  back: Any

  def forward(self, x: Array) -> Array:
    return self.fn(x)

  def backward(self, y: Array) -> Array:
    if self.back is not None:
      return self.back(y)
    return jax.linear_transpose(self.fn, jax.ShapeDtypeStruct((len(y), *self.shape), y.dtype))(y)[0]


def compose(*operators: Operator) -> 'Composed':
  """One operator after another, the first one first.

  Raises:
    InputError: what one makes is not what the next one takes.
  """
  if not operators:
    raise InputError('operators: got none; allowed: one or more')
  for i, (one, two) in enumerate(zip(operators, operators[1:], strict=False)):
    if one.out != two.shape:
      raise InputError(f'operators[{i + 1}]: got examples of shape {two.shape}; allowed: {one.out}, which the one '
                       'before makes')  # fmt: skip
  return Composed(tuple(operators), shape=operators[0].shape, out=operators[-1].out)


class Composed(Operator):
  """Made by `compose`."""

  operators: tuple

  def forward(self, x: Array) -> Array:
    for operator in self.operators:
      x = operator.forward(x)
    return x

  def backward(self, y: Array) -> Array:
    for operator in self.operators[::-1]:
      y = operator.backward(y)
    return y
