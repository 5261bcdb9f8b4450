"""EPS-AD: strange data by the score averaged over small perturbations, compared by a kernel with those of a bank."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.noise_levels import at, times_of
from diffjax.prediction import Denoise
from diffjax.process import expand
from diffjax.pytree import PyTree
from diffjax.schedules import vp_linear

__all__ = ['DeepKernel', 'MedianKernel', 'anomaly', 'auroc', 'expected_score', 'fit_kernel', 'median_kernel', 'mmd2']


def expected_score(denoise: Denoise, x: Array, key: Array, cond: Cond = None, *, times: int = 20) -> Array:
  """The expected perturbation score of x, (B, ...).

      EPS(x) = (1 / T) sum_{k = 1}^T score(alpha x + sigma e_k, k / 1000)

  one noise a time; the noise levels are those of `vp_linear` at these times, on every process. Of a Gaussian of
  covariance S it is -M x + noise with M = mean of alpha (alpha^2 S + sigma^2)^-1: directions in which data vary little
  are seen best. T evaluations.

  arXiv:2305.16035

  Args:
    denoise: what is asked for predictions.
    x: (B, ...), one array.
    key: a typed key, or one a sample.
    cond: the condition of each sample.
    times: T, 20 on CIFAR-10 and 50 on ImageNet there.

  Raises:
    InputError: `times` is not from 1 to 1000, or wrong labels.
  """
  if not 1 <= times <= 1000:
    raise InputError(f'times: got {times}; allowed: 1 to 1000')
  labels.check_for(denoise, cond)
  with jax.ensure_compile_time_eval():  # also within a trace
    paper = vp_linear()
  ts = times_of(denoise.process, at(paper, np.arange(1, times + 1) / 1000)[2])
  return _expected(denoise, x, keys.per_sample(key, len(x)), cond, jnp.asarray(ts, float))


@jax.jit
def _expected(denoise, x, key, cond, ts):
  def one(total: Array, drawn: tuple[Array, Array]) -> tuple[Array, None]:
    i, t = drawn
    noisy = denoise.process.perturb(x, keys.normal(keys.fold(key, i), x), t)
    return total - denoise(noisy, t, cond).eps / expand(denoise.process.schedule(t)[1], x), None

  return jax.lax.scan(one, jnp.zeros_like(x), (jnp.arange(len(ts)), ts))[0] / len(ts)


class MedianKernel(PyTree):
  """exp(-|a - b|^2 / (2 m^2)), (n, ...), (m, ...) -> (n, m); made by `median_kernel`."""

  width: Array

  def __call__(self, a: Array, b: Array) -> Array:
    """The kernel of every pair."""
    return jnp.exp(-_squares(_flat(a), _flat(b)) / (2 * self.width**2))


def median_kernel(bank: Array) -> MedianKernel:
  """The Gaussian kernel whose width m is the median distance within a bank (n, ...)."""
  flat = np.asarray(_flat(bank), np.float64)
  square = np.sum(flat**2, 1)[:, None] + np.sum(flat**2, 1) - 2 * flat @ flat.T
  return MedianKernel(jnp.asarray(np.sqrt(np.median(square[np.triu_indices(len(flat), 1)])), float))


class DeepKernel(PyTree):
  """((1 - e) exp(-|f(a) - f(b)|^2 / s0) + e) exp(-|a - b|^2 / s1), f a small network; made by `fit_kernel`.

  Attributes:
    params: the weights of f, and the roots of s0 and s1 and the logit of e.
    scale: what inputs are divided by.
    slope: of the rectifier below 0.
  """

  params: Any
  scale: Array
  slope: float = struct.field(pytree_node=False, default=0.2)

  def features(self, x: Array) -> Array:
    """f(x), (n, features): two layers with a leaky rectifier."""
    p = self.params
    h = jax.nn.leaky_relu(_flat(x) / self.scale @ p['w0'] + p['b0'], self.slope)
    return h @ p['w1'] + p['b1']

  def __call__(self, a: Array, b: Array) -> Array:
    """The kernel of every pair."""
    p, mixed = self.params, jax.nn.sigmoid(self.params['mix'])
    near = jnp.exp(-_squares(self.features(a), self.features(b)) / p['s0'] ** 2)
    return ((1 - mixed) * near + mixed) * jnp.exp(-_squares(_flat(a), _flat(b)) / (self.scale * p['s1']) ** 2)


def fit_kernel(
  natural: Array,
  strange: Array,
  key: Array,
  *,
  width: int = 64,
  features: int = 32,
  steps: int = 200,
  batch: int = 100,
  learning_rate: float = 2e-3,
) -> DeepKernel:
  """The deep kernel that tells natural from strange best: it maximises MMD^2 / std(MMD^2), by Adam.

  Var = 4 (mean_i (mean_j h_ij)^2 - (mean h)^2), h = k(x, x') + k(y, y') - k(x, y') - k(y, x').

  arXiv:2305.16035, arXiv:2002.09116

  Args:
    natural: expected scores of natural data (n, ...).
    strange: those of others, (m, ...).
    key: a typed key.
    width: of the network f.
    features: what it returns.
    steps: of the optimiser.
    batch: examples of each a step.
    learning_rate: of Adam.

  Raises:
    InputError: fewer examples of either than a batch.
  """
  if min(len(natural), len(strange)) < batch:
    raise InputError(f'batch: got {batch} of {len(natural)} and {len(strange)} examples; allowed: at most as many')
  d = _flat(natural).shape[1]
  k0, k1, own = jax.random.split(key, 3)
  params = dict(
    w0=jax.random.normal(k0, (d, width)) / np.sqrt(d),
    b0=jnp.zeros(width),
    w1=jax.random.normal(k1, (width, features)) / np.sqrt(width),
    b1=jnp.zeros(features),
    s0=jnp.asarray(np.sqrt(features), float),
    s1=jnp.asarray(2.0),
    mix=jnp.asarray(-2.0),
  )
  kernel = DeepKernel(params, jnp.asarray(median_kernel(natural).width))
  return _fitted(kernel, _flat(natural), _flat(strange), own, jnp.asarray(learning_rate, float), steps, batch)


@partial(jax.jit, static_argnames=('steps', 'batch'))
def _fitted(kernel, natural, strange, key, rate, steps, batch):
  optimiser = optax.scale_by_adam()

  def loss(params: Any, x: Array, y: Array) -> Array:
    h = _pairs(kernel.replace(params=params), x, y)
    n = len(h)
    value = (jnp.sum(h) - jnp.trace(h)) / (n * (n - 1))
    var = 4 * (jnp.mean(jnp.mean(h, 1) ** 2) - jnp.mean(h) ** 2)
    return -value / jnp.sqrt(jnp.maximum(var, 0) + 1e-8)

  def step(carry: tuple, key: Array) -> tuple[tuple, None]:
    params, state = carry
    of_x, of_y = jax.random.split(key)
    x = jax.random.choice(of_x, natural, (batch,), replace=False)
    y = jax.random.choice(of_y, strange, (batch,), replace=False)
    move, state = optimiser.update(jax.grad(loss)(params, x, y), state)
    return (jax.tree.map(lambda p, m: p - rate * m, params, move), state), None

  first = (kernel.params, optimiser.init(kernel.params))
  (params, _), _ = jax.lax.scan(step, first, jax.random.split(key, steps))
  return kernel.replace(params=params)


def mmd2(kernel: Any, x: Array, y: Array) -> Array:
  """The unbiased MMD^2 of two sets of one size, (n, ...) each."""
  h, n = _pairs(kernel, x, y), len(x)
  return (jnp.sum(h) - jnp.trace(h)) / (n * (n - 1))


def anomaly(kernel: Any, bank: Array, x: Array) -> Array:
  """How strange each x is, (B,): MMD^2 of it alone to a bank of natural ones, a kernel density with the sign turned.

  mean k(b, b') + k(x, x) - 2 mean_i k(b_i, x). A threshold of its own is a quantile of the bank's values, each against
  the others.
  """
  alone = jax.vmap(lambda x: kernel(x[None], x[None])[0, 0])(x)
  return jnp.mean(kernel(bank, bank)) + alone - 2 * jnp.mean(kernel(bank, x), 0)


def auroc(natural: Any, strange: Any) -> float:
  """The probability that a strange one has the higher figure, ties counting half: the area under the ROC curve."""
  both = np.concatenate([np.asarray(natural), np.asarray(strange)])
  ordered = np.sort(both)
  rank = (np.searchsorted(ordered, both, 'left') + np.searchsorted(ordered, both, 'right') + 1) / 2
  n, m = len(natural), len(strange)
  return float((rank[n:].sum() - m * (m + 1) / 2) / (n * m))


def _pairs(kernel: Any, x: Array, y: Array) -> Array:
  """h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i), (n, n)."""
  cross = kernel(x, y)
  return kernel(x, x) + kernel(y, y) - cross - cross.T


def _flat(x: Any) -> Array:
  return jnp.asarray(x).reshape(len(x), -1)


def _squares(a: Array, b: Array) -> Array:
  product = jnp.matmul(a, b.T, precision='highest')
  return jnp.maximum(jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1) - 2 * product, 0)
