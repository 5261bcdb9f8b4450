"""GMS: an ancestral step that draws from a mixture of two Gaussians, fitted to three moments in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.process import Process, expand
from diffjax.solvers.noise import Noise, independent
from diffjax.solvers.own.sn_dpm import Stepped, Steps, given_keys, laid_out, root, unzip

__all__ = ['gms']

LEAST = 0.05  # of the variance of x_s, what free weights leave to each component


def gms(
  process: Process,
  ts: Any,
  *,
  free_weight: bool = True,
  per_dimension: bool = True,
  clip: tuple[float, float] | None = None,
  last_std: float | None = None,
  data_var: Any = 0.0,
) -> 'Mixed':
  """GMS: ancestral sampling by two Gaussians a dimension, which have the right mean, variance and skewness.

  The paper fits it in every step by gradient descent; here it is solved. With m, C and S the three moments of x_s:

      free_weight   both of the variance v = max(std^2, C / 20), std that of DDPM. With q = C - v, T = S / q and
                    r = sqrt(T^2 + 4 q) their means are m + (T + r) / 2, with probability (1 - T / r) / 2, and
                    m + (T - r) / 2: any skewness is met. Where v = std^2, the step takes x0 for one of two values, the
                    nodes of the two-point Gauss quadrature of its law given x_t.
      otherwise     the paper's weights 1/3 and 2/3: means m + 2/3 D and m - 1/3 D, D = cbrt(13.5 S), and the variance
                    C - 2/9 D^2 for both. |D| is bounded so that this is at least C / 10 (then S is not met).

  Needs aux['eps2'] and aux['eps3']. The step to sigma = 0 returns x0.   arXiv:2311.00941; the solutions are ours

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    free_weight: whether the weight of the two components is fitted too.
    per_dimension: each dimension draws its component by itself; False draws one number a sample, as published.
    clip: as of `sn_dpm`. With a range [a, b], Var x0 is at most (b - x0)(x0 - a), and its skewness what laws
      on that range can have.
    last_std: bounds the last noisy step, which then is one Gaussian.
    data_var: see `clip`.

  Raises:
    InputError: the range is empty, last_std is negative; when run, a denoiser without 'eps2' and 'eps3'.
  """
  laid = laid_out(process, ts, 1.0, clip, last_std, data_var)
  return Mixed(*laid, free_weight=bool(free_weight), per_dimension=bool(per_dimension))


class Mixed(Stepped):
  """Made by `gms`."""

  free_weight: bool = struct.field(pytree_node=False, default=True, kw_only=True)
  per_dimension: bool = struct.field(pytree_node=False, default=True, kw_only=True)

  def transition(self, state: Any, pred: Pred, row: Steps) -> tuple[Any, Any]:
    """No Gaussian: InputError. `components` gives the law."""
    raise InputError('transition: got gms, whose step is a mixture; allowed: its `components`, or a Gaussian solver')

  def components(self, state: Any, pred: Pred, row: Steps) -> tuple[Any, Any, Any, Any]:
    """The law of the step, a dimension at a time, as (first, second, weight, std), each like x.

    N(first, std^2) with probability `weight`, else N(second, std^2).
    """
    moments = self._told(pred, 'eps2', 'eps3')

    def law(x: Array, x0: Array, eps: Array, eps2: Array, eps3: Array) -> tuple[Array, ...]:
      r, data_var = self._levels(row, x)
      x, x0, eps, eps2, eps3 = (leaf.astype(wide(x)) for leaf in (x, x0, eps, eps2, eps3))
      x0 = self._clipped(x0)
      var, tilt = self._shape(r, data_var, x0, eps, eps2, eps3)
      first, second, weight, square = (_two_points if self.free_weight else _third)(r, var, tilt)
      one = jnp.isfinite(r.most)  # the last steps: one Gaussian
      std = jnp.where(one, jnp.minimum(root(r.std**2 + r.pull**2 * var), r.most), root(square))
      mean = r.keep * x + r.pull * x0
      return mean + jnp.where(one, 0, first), mean + jnp.where(one, 0, second), weight, std

    return unzip(4, law, state, pred.x0, *moments)

  def _shape(self, r: Steps, data_var: Array, x0: Array, eps: Array, eps2: Array, eps3: Array) -> tuple[Array, Array]:
    """Var x0, and the third central moment of x0 over it; within what the range of the data allows."""
    noise = jnp.maximum(eps2 - eps**2, 0)
    var = noise * r.ratio**2 + r.blind * data_var
    tilt = -r.ratio * _over(eps3 - 3 * eps * eps2 + 2 * eps**3, noise)
    if self.clip is None:
      return var, tilt
    low, high = self.clip.astype(x0.dtype)
    below, above = x0 - low, high - x0
    var = jnp.minimum(var, above * below)
    return var, jnp.clip(tilt, _over(var, below) - below, above - _over(var, above))

  def update(self, state: Any, pred: Pred, row: Steps, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    """Draws the component, then its mean + std z with z = noise(key_batch, row, x); InputError without keys."""
    key_batch = given_keys(key_batch)
    parts = self.components(state, pred, row)
    z = noise(key_batch, row, state)
    chance = keys.fold(keys.fold(key_batch, row.stream), 1)  # z has the stream row.stream itself
    leaves, treedef = jax.tree.flatten(state)
    if self.per_dimension:
      streams = [chance] if len(leaves) == 1 else keys.split(chance, len(leaves))
      u = [jax.vmap(lambda k, x: jax.random.uniform(k, x.shape))(k, x) for k, x in zip(streams, leaves, strict=True)]
    else:
      u = [expand(keys.uniform(chance), x) for x in leaves]
    pick = lambda u, first, second, weight, std, z: jnp.where(u < weight, first, second) + std * z  # noqa: E731
    return jax.tree.map(pick, jax.tree.unflatten(treedef, u), *parts, z)

  def _title(self) -> str:
    fit = 'free weights' if self.free_weight else 'weights 1/3 and 2/3'
    return f'two Gaussians, {fit}, one draw a {"dimension" if self.per_dimension else "sample"}'


def _two_points(r: Steps, var: Array, tilt: Array) -> tuple[Array, Array, Array, Array]:
  """(offset, offset, weight, variance): up - down = T and up * down = q."""
  total = r.std**2 + r.pull**2 * var
  q = jnp.minimum(r.pull**2 * var, (1 - LEAST) * total)
  t = r.pull**3 * tilt * _over(var, q)
  width = root(t**2 + 4 * q)
  far = (jnp.abs(t) + width) / 2
  near = _over(q, far)  # the smaller root, without cancellation
  up, down = jnp.where(t > 0, far, near), jnp.where(t > 0, near, far)
  return up, -down, _over(down, width), total - q


def _third(r: Steps, var: Array, tilt: Array) -> tuple[Array, Array, Array, Array]:
  """(offset, offset, weight, variance) of weights 1/3 and 2/3: the third moment is 2/27 gap^3."""
  total = r.std**2 + r.pull**2 * var
  cube = 13.5 * tilt * var
  some = cube != 0
  most = root(4.05 * total)  # there the variance is total / 10
  gap = jnp.clip(r.pull * jnp.where(some, jnp.cbrt(jnp.where(some, cube, 1)), 0), -most, most)
  return 2 / 3 * gap, -gap / 3, jnp.full_like(var, 1 / 3), total - 2 / 9 * gap**2


def _over(a: Array, b: Array) -> Array:
  """The quotient a / b, 0 where b is not positive."""
  some = b > 0
  return jnp.where(some, a / jnp.where(some, b, 1), 0)
