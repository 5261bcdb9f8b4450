"""Drawing along an interpolant from its base to its data, with as much noise as one likes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.bridges.interpolants import EDGE, Interpolant
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.pytree import PyTree

__all__ = ['Between', 'grid']


def grid(steps: int) -> np.ndarray:
  """Times from 1 - .001 down to .001, sin^2 of an even grid, closer where gamma falls to 0, and then 0.

  Raises:
    InputError: fewer than two steps.
  """
  if steps < 2:
    raise InputError(f'steps: got {steps}; allowed: a whole number of at least 2')
  low = np.arcsin(np.sqrt(EDGE))
  return np.append(np.sin(np.linspace(np.pi / 2 - low, low, steps)) ** 2, 0.0)


class Between(PyTree):
  """A generator: the base carried to the data by the SDE of an interpolant's fields.

      x <- x - h b + h e score + sqrt(2 e h) n,    e = noise gamma(t), b = drift,  score = -eta / gamma

  Euler's step; the last one, to t = 0, has no noise. All laws of x_t are the same whatever the noise; without any it is
  the ODE, and eta is not asked.   arXiv:2303.08797 sec. 2.3

  Attributes:
    drift: (x, t (B,), cond) -> b (B, ...), a pytree.
    eta: the denoiser E[z | x_t], alike; None at noise 0.
    interpolant: whose fields these are.
    noise: e over gamma.
    ts: the times (steps + 1,), falling to 0.
    shape: of one sample.
    paired: whether the base is cond['source'], not N(0, I).
  """

  drift: Any
  eta: Any
  interpolant: Interpolant
  noise: Array
  ts: Array
  shape: tuple = struct.field(pytree_node=False)
  paired: bool = struct.field(pytree_node=False, default=False)

  @property
  def nfe(self) -> int:
    """Evaluations of each network."""
    return len(self.ts) - 1

  @property
  def cost(self) -> float:
    """Forwards of a sample."""
    return float(self.nfe * (1 if self.eta is None else 2) - (0 if self.eta is None else 1))

  @property
  def times(self) -> np.ndarray:
    """The time of each step."""
    return np.asarray(self.ts[:-1])

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError where the base is part of the condition and is not there."""
    if self.paired and not (isinstance(cond, dict) and 'source' in cond):
      raise InputError(f"{field}: got no 'source'; allowed: {{'label': labels or None, 'source': (B, ...)}}")

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Array:
    """The samples (B, ...), one a key."""
    begin, own = keys.split(key_batch, 2)
    like = jax.ShapeDtypeStruct((len(key_batch), *self.shape), jnp.float32)
    label = cond.get('label') if isinstance(cond, dict) else cond
    x = jnp.asarray(cond['source'], jnp.float32) if self.paired and cond else keys.normal(begin, like)

    def step(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
      i, t, s = row
      at = jnp.full(len(x), t)
      moved = x - (t - s) * self.drift(x, at, label)
      if self.eta is None:
        return moved, None

      def noisy() -> Array:
        e = self.noise * self.interpolant.gamma(t)
        pulled = moved - (t - s) * self.noise * self.eta(x, at, label)
        return pulled + jnp.sqrt(2 * e * (t - s)) * keys.normal(keys.fold(own, i), x)

      return jax.lax.cond(s > 0, noisy, lambda: moved), None

    n = len(self.ts) - 1
    return jax.lax.scan(step, x, (jnp.arange(n), self.ts[:-1], self.ts[1:]))[0]


class Asked(PyTree):
  """A network with its parameters as a field (x, t, cond) -> array."""

  params: Any
  net: Any = struct.field(pytree_node=False)

  def __call__(self, x: Array, t: Array, cond: Cond = None) -> Array:
    return self.net(self.params, x, 1000 * t, cond, None).astype(x.dtype)
