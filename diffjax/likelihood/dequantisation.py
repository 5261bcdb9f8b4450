"""Variational dequantisation: the noise that spreads a value over its bin is learned, and its density is accounted for.

log P(x) >= E log p(x + w u) - log q(u | x) + d log w, u on (-1/2, 1/2), w the width of a bin; equal where q is the
posterior of u, and worse by the mean of KL(q || posterior) otherwise. Uniform noise is q = 1.

arXiv:1902.00275 sec. 3.1
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.likelihood.steps import check_levels
from diffjax.pytree import PyTree

__all__ = ['Dequantiser', 'dequantised_bound', 'dequantiser', 'fit_dequantiser']

LogDensity = Callable[[Array, KeyBatch], Array]


class Dequantiser(PyTree):
  """q(u | x) of every component: u = sigmoid(shift(x) + scale(x) l) - 1/2, l logistic; see `dequantiser`.

  Attributes:
    params: of the network x -> (shift, log scale), one hidden layer.
    levels: how many values a component of x has, evenly on [-1, 1].
  """

  params: dict[str, Array]
  levels: int = struct.field(pytree_node=False)

  @property
  def width(self) -> float:
    """Of a bin."""
    return 2 / (self.levels - 1)

  def __call__(self, key_batch: KeyBatch, x: Array) -> tuple[Array, Array]:
    """The points x + width u, (B, ...), and log q(u | x) in nats, (B,)."""
    x, p = widened(x), self.params
    hidden = jnp.tanh(x.reshape(len(x), -1) @ p['inward'] + p['place'])
    shift, log_scale = jnp.split(hidden @ p['outward'] + p['bias'], 2, axis=-1)
    drawn = jax.vmap(lambda key, row: jax.random.logistic(key, row.shape, row.dtype))(key_batch, shift)
    logit = shift + jnp.exp(log_scale) * drawn
    log_q = _log_slope(drawn) - log_scale - _log_slope(logit)
    return x + self.width * (jax.nn.sigmoid(logit) - 0.5).reshape(x.shape), jnp.sum(log_q, -1)


def dequantiser(key: Array, shape: tuple[int, ...], levels: int, *, hidden: int = 32) -> Dequantiser:
  """A fresh q for data of this shape, under which noise is uniform: as `dequantised` until it is trained.

  Args:
    key: a typed key.
    shape: that of one example.
    levels: how many values a component has, evenly on [-1, 1].
    hidden: units of the network, which sees all of x.

  Raises:
    InputError: fewer than two levels, or no hidden units.
  """
  check_levels(levels)
  if hidden < 1:
    raise InputError(f'hidden: got {hidden}; allowed: a whole number of at least 1')
  d = math.prod(shape)
  k_inward, k_place = jax.random.split(key)
  return Dequantiser({
    'inward': 2 * jax.random.normal(k_inward, (d, hidden)) / jnp.sqrt(d),
    'place': jax.random.normal(k_place, (hidden,)),
    'outward': jnp.zeros((hidden, 2 * d)),
    'bias': jnp.zeros(2 * d),
  }, levels)  # fmt: skip


def dequantised_bound(q: Dequantiser, log_density: LogDensity, x: Array, key: Array, *, samples: int = 1) -> Array:
  """The lower bound of log P(x) in nats, (B,), the mean of `samples` draws an example; `in_bits` makes it bits.

  E log p(x + w u) - log q(u | x) + d log w, log P the log-mass of the bin, so that bits a dimension are
  `in_bits(bound, d)` with no width: it is in the bound.

  Args:
    q: what spreads the values.
    log_density: (points (B, ...), keys (B,)) -> (B,) nats, or a lower bound of it, such as
      `lambda y, key: -continuous_bound(denoise, y, key).total`.
    x: data (B, ...), values of q's levels.
    key: one typed key, or one an example.
    samples: draws of u.

  Raises:
    InputError: no samples.
  """
  if samples < 1:
    raise InputError(f'samples: got {samples}; allowed: a whole number of at least 1')
  key, size = keys.per_sample(key, len(x)), x[0].size

  def one(i: Array) -> Array:
    k_noise, k_density = keys.split(keys.fold(key, i), 2)
    points, log_q = q(k_noise, x)
    return log_density(points, k_density) - log_q

  return jnp.mean(jax.lax.map(one, jnp.arange(samples)), 0) + size * jnp.log(q.width)


def fit_dequantiser(
  q: Dequantiser, log_density: LogDensity, x: Array, key: Array, *, steps: int, batch: int = 128, rate: float = 1e-2
) -> tuple[Dequantiser, Array]:
  """Raises the bound of a density that stays as it is, by Adam whose rate falls to 0 along a cosine.

  Args:
    q: where to begin.
    log_density: as of `dequantised_bound`, with gradients backwards.
    x: examples (n, ...), drawn with replacement.
    key: a typed key.
    steps: how many.
    batch: examples a step.
    rate: Adam's, at first.

  Returns:
    q, trained; the bound of each step's batch in nats, (steps,).

  Raises:
    InputError: no steps, or no batch.
  """
  for field, value in dict(steps=steps, batch=batch).items():
    if value < 1:
      raise InputError(f'{field}: got {value}; allowed: a whole number of at least 1')
  return _fit(q, x, key, log_density, steps, batch, rate)


@partial(jax.jit, static_argnames=('log_density', 'steps', 'batch', 'rate'))
def _fit(q, x, key, log_density, steps, batch, rate):
  optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

  def step(carry: tuple, i: Array) -> tuple[tuple, Array]:
    q, state = carry
    k_rows, k_bound = jax.random.split(jax.random.fold_in(key, i))
    rows = x[jax.random.randint(k_rows, (batch,), 0, len(x))]
    loss, grads = jax.value_and_grad(lambda q: -jnp.mean(dequantised_bound(q, log_density, rows, k_bound)))(q)
    updates, state = optimiser.update(grads, state)
    return (optax.apply_updates(q, updates), state), -loss

  (q, _), bounds = jax.lax.scan(step, (q, optimiser.init(q)), jnp.arange(steps))
  return q, bounds


def _log_slope(z: Array) -> Array:
  """The logarithm of sigmoid'(z), which is also the logistic density at z."""
  return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
