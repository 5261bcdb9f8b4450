"""What was observed: y = A x0 with noise, one a sample; its likelihood, and draws of Gaussian posteriors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.inverse.operators import Operator, check
from diffjax.process import expand
from diffjax.pytree import PyTree

__all__ = ['Observation', 'gaussian', 'observation', 'observe', 'poisson', 'unseen']

SEEN = 'observed'  # the name in a condition under which y travels


def gaussian(std: float = 0.05) -> 'GaussianNoise':
  """Gaussian noise of this deviation, y ~ N(A x0, std^2).

  Raises:
    InputError: std is not positive.
  """
  if not np.all(np.asarray(std) > 0):
    raise InputError(f'std: got {std}; allowed: a positive number')
  return GaussianNoise(jnp.asarray(std, float))


class GaussianNoise(PyTree):
  """Made by `gaussian`."""

  std: Array

  def draw(self, key_batch: KeyBatch, clean: Array) -> Array:
    """One y a key of what would be seen without noise."""
    return clean + self.std.astype(clean.dtype) * keys.normal(key_batch, clean)

  def variance(self, y: Array) -> Array:
    """Of the noise in y: a number."""
    return self.std**2


def poisson(rate: float = 100.0) -> 'PoissonNoise':
  """Counts of light: (y + 1)/2 ~ Poisson(rate (A x0 + 1)/2) / rate, of images in [-1, 1].

  Raises:
    InputError: rate is not positive.
  """
  if not np.all(np.asarray(rate) > 0):
    raise InputError(f'rate: got {rate}; allowed: a positive number of counts at brightness 1')
  return PoissonNoise(jnp.asarray(rate, float))


class PoissonNoise(PyTree):
  """Made by `poisson`."""

  rate: Array

  def draw(self, key_batch: KeyBatch, clean: Array) -> Array:
    """One y a key of what would be seen without noise."""
    mean = self.rate * jnp.maximum(clean.astype(jnp.float32) + 1, 0) / 2
    counts = jax.vmap(lambda key, m: jax.random.poisson(key, m))(key_batch, mean)
    return (2 * counts / self.rate - 1).astype(clean.dtype)

  def variance(self, y: Array) -> Array:
    """Of the Gaussian nearest to the noise, like y: its variance at the counts that were seen, one at least."""
    return 4 * jnp.maximum(self.rate * (y + 1) / 2, 1.0) / self.rate**2


class Observation(PyTree):
  """y = A x0 with noise.

  Attributes:
    operator: A.
    y: what was seen, (B, *out) or (1, *out) of all; None where it travels in the condition, as cond['observed'].
    noise: made by `gaussian` or `poisson`.
  """

  operator: Operator
  y: Any
  noise: Any

  def of(self, cond: Cond) -> tuple['Observation', Cond]:
    """This observation with its y, and the condition that is the network's own."""
    if self.y is not None:
      return self, cond
    if not isinstance(cond, dict) or SEEN not in cond:
      raise InputError(f"cond: got no {SEEN!r}; allowed: {{'label': labels or None, '{SEEN}': y}}, or an observation "
                       'that holds its y')  # fmt: skip
    rest = {name: part for name, part in cond.items() if name != SEEN}
    told = rest.get('label') if set(rest) <= {'label'} else rest
    return observation(self.operator, cond[SEEN], self.noise), told

  @property
  def variance(self) -> Array:
    """Of the noise: a number, or like y."""
    return self.noise.variance(self.y)

  def residual(self, x0: Array) -> Array:
    """What the prediction misses, y - A x0."""
    return self.y.astype(x0.dtype) - self.operator(x0)

  def log_likelihood(self, x0: Array) -> Array:
    """The log-likelihood log N(y; A x0, R), up to a constant, (B,)."""
    miss = self.residual(x0)
    return -0.5 * jnp.sum((miss**2 / self.variance).reshape(len(miss), -1), axis=1)

  def weighed(self, miss: Array, spread: Any) -> Array:
    """(R + spread A A^T)^{-1} of a residual; `spread` the variance of x0 about its prediction, () or (B,)."""
    return self.operator.solve(miss, self.variance, spread)

  def pulled(self, x0: Array, spread: Any) -> Array:
    """The mean of N(x0, spread I) given y: x0 + spread A^T (R + spread A A^T)^{-1} (y - A x0)."""
    gain = self.operator.adjoint(self.weighed(self.residual(x0), spread))
    return x0 + expand(jnp.asarray(spread), x0).astype(x0.dtype) * gain

  def drawn(self, key_batch: KeyBatch, x0: Array, spread: Any) -> Array:
    """A draw of N(x0, spread I) given y: a draw of the joint law, pulled to y."""
    here, there = keys.split(key_batch, 2)
    near = x0 + expand(jnp.sqrt(spread), x0).astype(x0.dtype) * keys.normal(here, x0)
    noise = jnp.sqrt(self.variance) * keys.normal(there, self.operator(x0))
    return self.replace(y=self.y + noise).keeping(self.variance).pulled(near, spread)

  def keeping(self, variance: Array) -> 'Observation':
    """The same with Gaussian noise of this variance, whatever y is."""
    return self.replace(noise=Fixed(variance))


class Fixed(PyTree):
  """Noise of a known variance, like y or a number."""

  known: Array

  def variance(self, y: Array) -> Array:
    return self.known


def observation(operator: Operator, y: Any, noise: Any = None) -> Observation:
  """What was seen through `operator`: y (B, *out), or (1, *out) of all; Gaussian noise of .05 by default.

  Raises:
    InputError: y is of another shape than the operator makes.
  """
  y = jnp.asarray(y)
  check(y, operator.out, 'y')
  return Observation(operator, y, gaussian() if noise is None else noise)


def unseen(operator: Operator, noise: Any = None) -> Observation:
  """An observation whose y travels in the condition."""
  return Observation(operator, None, gaussian() if noise is None else noise)


def observe(operator: Operator, x: Array, key: Array, noise: Any = None) -> Observation:
  """Looks at x (B, *shape): y = A x with noise, Gaussian of .05 by default; a typed key, or one a sample.

  Raises:
    InputError: x is of another shape.
  """
  noise = gaussian() if noise is None else noise
  return Observation(operator, noise.draw(keys.per_sample(key, len(x)), operator(x)), noise)
