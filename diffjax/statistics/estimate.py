"""Statistics of a network on data: means over noised examples, the same examples and noise at every noise level."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import finite, keys, labels
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.fingerprint import stamp
from diffjax.noise_levels import times_of
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.statistics.closed import knots as knots_of
from diffjax.statistics.types import ModelStatistics, NoiseEnergy

__all__ = ['energies', 'linear_terms']

SMALL = 8  # elements of an example up to which a diagonal is computed whole, not probed

STEEPEST = 3.0  # |s|: smooth targets stay below, a flat element with few examples does not, and e^{int s} explodes

Place = Callable[[Any], Any]
Progress = Callable[[Iterator], Iterator]


def energies(
  denoise: Denoise,
  x0: Data,
  key: Array,
  cond: Cond = None,
  *,
  knots: int = 120,
  batch: int = 256,
  place: Place = jnp.asarray,
  progress: Progress = iter,
) -> NoiseEnergy:
  """Estimates Gamma, the mean squared norm of the predicted noise per element, at `knots` noise levels.

  Gamma(lam) = E |eps(x_t)|^2 / d over the examples x0 (n, ...), at `knots` noise levels.   arXiv:2201.06503

  Less its regression on |eps|^2 / d - 1, eps . (x0 - m) and eps . m, m the mean of the data, whose means are known to
  be 0 (control variates): so 1 - Gamma keeps its relative precision where the network finds nearly all of the noise.

  Args:
    denoise: what is asked for predictions.
    x0: examples (n, ...).
    key: one typed key, or one an example (n,); example i is noised alike at every level.
    cond: the condition of each example, a pytree with n in front.
    knots: the number of noise levels.
    batch: examples a call; only memory and speed depend on it.
    place: puts a batch onto devices, for example over the mesh that holds the parameters.
    progress: wraps the iterator over batches, in each pass over them.

  Raises:
    InputError: no examples, fewer than two knots, or a batch below 1.
    FloatingPointError: what the network says is not finite.
  """
  process = denoise.process
  labels.check_for(denoise, cond)
  lam = _checked(process, knots, x0, batch)
  ts = _times(process, lam)
  mean = np.mean(np.asarray(x0, np.float64), 0).astype(np.asarray(x0).dtype)
  batches = progress(_batches(x0, key, cond, batch, place))
  parts = [jax.tree.map(np.asarray, _energies(denoise, *part, ts, mean)) for part in batches]  # done when it says so
  sizes, controls = (np.concatenate([np.asarray(part[i], np.float64) for part in parts], -1) for i in range(2))
  finite.check('energies', finite.lost(sizes.T), 'examples')
  weights = np.linalg.lstsq((controls - controls.mean(1, keepdims=True)).T, sizes.T, rcond=1e-10)[0]
  value = sizes.mean(1) - controls.mean(1) @ weights
  return NoiseEnergy(stamp(process), lam, value, float(np.min(x0)), float(np.max(x0)))


@jax.jit
def _energies(denoise: Denoise, x0: Array, z: Array, _: Array, cond: Cond, ts: Array, mean: Array) -> tuple:
  """|eps(x_t)|^2 / d, (M, B), and the three controls (3, B)."""

  def inner(u: Array, v: Array) -> Array:
    return jnp.mean(u.astype(wide(u)) * v, axis=tuple(range(1, u.ndim)))

  def at(t: Array) -> Array:
    eps = denoise(denoise.process.perturb(x0, z, t), t, cond).eps
    return inner(eps, eps)

  controls = jnp.stack([inner(z, z) - 1, inner(z, x0 - mean), inner(z, mean)])
  return jax.lax.map(at, ts), controls


def linear_terms(
  denoise: Denoise,
  x0: Data,
  key: Array,
  cond: Cond = None,
  *,
  knots: int = 120,
  batch: int = 256,
  place: Place = jnp.asarray,
  progress: Progress = iter,
) -> ModelStatistics:
  """Estimates DPM-Solver-v3's l, s and b for every element of an example.

      l  = E sigma diag(d eps / dx)                       minimises E |sigma d eps / dx - diag(l)|^2
      f  = (sigma eps - l x) / alpha,   f' = df / dlam along the probability-flow ODE
      s  = cov(f, f') / var(f),   b = E f' - s E f        minimise E |f' - s f - b|^2

  Two passes over the examples x0 (n, ...), each with one evaluation and one jvp an example and level; the diagonal by
  one Rademacher probe an example, or whole where an example has at most 8 elements. The same noise and probe serve
  every level: with fresh ones l is rough in lam, and the solver pays for it. s = 0 where f does not vary, and is held
  to [-3, 3].

  Args and errors as `energies`.   arXiv:2310.13268 sec. 3.1
  """
  process = denoise.process
  labels.check_for(denoise, cond)
  lam = _checked(process, knots, x0, batch)
  ts, n = _times(process, lam), 0
  rest = np.zeros(())
  for part in progress(_batches(x0, key, cond, batch, place)):
    rest = rest + len(part[1]) * np.asarray(_slopes(denoise, *part, ts), np.float64)
    n += len(part[1])
  rest = rest / n
  finite.check('linear terms', finite.lost(rest), 'noise levels')
  slope, rise = 1 - rest, -np.gradient(rest, lam, axis=0)
  levels = tuple(np.asarray(v, ts.dtype) for v in (slope, rest, rise))
  total = None
  for part in progress(_batches(x0, key, cond, batch, place)):
    moments = [np.asarray(m, np.float64) for m in _moments(denoise, *part, ts, *levels)]
    total = _merged(total, (len(part[1]), *moments))
  assert total is not None
  for moments in total[1:]:
    finite.check('linear terms', finite.lost(moments), 'noise levels')
  _, f, rate, var, cov = total
  varies = var > 1e-10 * (var + f**2)  # less is rounding
  s = np.clip(np.where(varies, cov / np.where(varies, var, 1), 0), -STEEPEST, STEEPEST)
  return ModelStatistics(stamp(process), lam, slope, s, rate - s * f)


@jax.jit
def _slopes(denoise: Denoise, x0: Array, z: Array, sign: Array, cond: Cond, ts: Array) -> Array:
  """1 - l, the mean over the batch of alpha diag(d x0 / dx), (M, ...): l itself would lose it in float32 near 1."""
  size = x0[0].size
  probes = jnp.eye(size, dtype=x0.dtype).reshape(size, 1, *x0.shape[1:]) if size <= SMALL else sign[None]

  def at(t: Array) -> Array:
    push = jax.linearize(lambda x: denoise(x, t, cond).x0, denoise.process.perturb(x0, z, t))[1]
    diagonal = jnp.sum(jax.lax.map(lambda v: v * push(jnp.broadcast_to(v, x0.shape)), probes), 0)
    return denoise.process.schedule(t)[0] * jnp.mean(diagonal.astype(wide(x0)), 0)

  return jax.lax.map(at, ts)


@jax.jit
def _moments(
  denoise: Denoise, x0: Array, z: Array, _: Array, cond: Cond, ts: Array, slope: Array, rest: Array, rise: Array
) -> tuple:
  """Over the batch, (M, ...) each: the means of f and f', the variance of f and its covariance with f'.

  With P = e^{-lam} eps and rest = 1 - l, f = rest P - l x0: no difference of numbers as large as x / alpha. Hence
  f' = rest (e^{-lam} eps' - P) - l x0' - l' (P + x0), eps' and x0' by one jvp of the network along the ODE.
  """
  process = denoise.process

  def at(level: tuple) -> tuple[Array, Array, Array, Array]:
    t, l, rest, rise = level  # noqa: E741
    x = process.perturb(x0, z, t)
    (clean, eps), push = jax.linearize(lambda x, t: denoise(x, t, cond)[:2], x, t)
    dlam = jax.jvp(process.lam, (t,), (jnp.ones_like(t),))[1]
    d_clean, d_eps = push(process.velocity(clean, eps, t), jnp.ones_like(t))
    p = jnp.exp(-process.lam(t))
    f = rest * p * eps - l * clean
    rate = rest * p * (d_eps / dlam - eps) - l * d_clean / dlam - rise * (p * eps + clean)
    f, rate = f.astype(wide(f)), rate.astype(wide(f))
    mean, mean_rate = jnp.mean(f, 0), jnp.mean(rate, 0)
    gap = f - mean
    return mean, mean_rate, jnp.mean(gap**2, 0), jnp.mean(gap * (rate - mean_rate), 0)

  return jax.lax.map(at, (ts, slope, rest, rise))


def _merged(total: tuple | None, part: tuple) -> tuple:
  """(count, mean f, mean f', variance, covariance) of two sets together, in float64."""
  if total is None:
    return part
  (n, a, b, aa, ab), (m, a1, b1, aa1, ab1) = total, part
  w = m / (n + m)
  da, db = a1 - a, b1 - b
  inside = (1 - w) * aa + w * aa1, (1 - w) * ab + w * ab1
  return n + m, a + w * da, b + w * db, inside[0] + w * (1 - w) * da * da, inside[1] + w * (1 - w) * da * db


def _checked(process: Process, knots: int, x0: Data, batch: int) -> np.ndarray:
  """The knots in lam."""
  if len(x0) < 1:
    raise InputError('x0: got no examples; allowed: at least one')
  if batch < 1:
    raise InputError(f'batch: got {batch}; allowed: at least 1')
  return knots_of(process, knots)


def _times(process: Process, lam: np.ndarray) -> Array:
  """The times of these lam, inside (0, t_max] also after rounding."""
  return jnp.asarray(np.minimum(times_of(process, lam), float(process.t_max)), float)


def _batches(x0: Data, key: Array, cond: Cond, batch: int, place: Place) -> Iterator[tuple[Array, Array, Array, Any]]:
  """(x0, noise, signs, cond) of at most `batch` examples at a time, each example's the same in every pass."""
  n = len(x0)
  key_batch = keys.per_sample(key, n)
  for first in range(0, n, batch):
    part = slice(first, first + batch)
    clean, cond_part = np.asarray(x0[part]), jax.tree.map(lambda c: np.asarray(c[part]), cond)  # noqa: B023
    clean, own, cond_part = jax.tree.map(place, (clean, key_batch[part], cond_part))
    yield clean, *_drawn(own, clean), cond_part


@jax.jit
def _drawn(key_batch: KeyBatch, x0: Array) -> tuple[Array, Array]:
  """Normal noise, and signs to probe a matrix with, like x0."""
  sign = jax.vmap(lambda k, x: jax.random.rademacher(k, x.shape, x.dtype))(keys.fold(key_batch, 1), x0)
  return keys.normal(keys.fold(key_batch, 0), x0), sign
