"""The proximal step: the data predicted are pulled to what was seen, in closed form and not through the network."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.guidance.transform import Transform, as_scale, value_at
from diffjax.inverse.observation import Observation
from diffjax.inverse.pigdm import positive, spread_of
from diffjax.prediction import Denoise, Pred, complete

__all__ = ['proximal']


def proximal(
  denoise: Denoise, observation: Observation, scale: Any = 1.0, *, data_std: float = 1.0, keep: bool = False
) -> 'Pulled':
  """Replaces x0 by the mean of N(x0, C I) given y, without a gradient through the network.

      x0 + C A^T (R + C A A^T)^{-1} (y - A x0),    C = scale / (1 / c^2 + alpha^2 / sigma^2)

  With eps of the new x0 it is the exact posterior denoiser of data N(m, c^2 I). data_std = inf and scale = 1 / lambda is
  the step of DiffPIR, argmin |y - A x|^2 / 2 r^2 + lambda alpha^2 |x - x0|^2 / 2 sigma^2   (arXiv:2305.08995), and a large
  scale the null-space step of DDNM, x0 + A^+ (y - A x0)   (arXiv:2212.00490).

  Args:
    denoise: what is asked for predictions; costs nothing more.
    observation: what was seen.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    data_std: c.
    keep: eps stays that of the old x0, as flows with the noise kept have it: not consistent on purpose, run it with
      `solvers.pair_form`; it is no sampler of the posterior, the variance falls to 0.

  Raises:
    InputError: data_std is not positive.
  """
  return Pulled(denoise, observation, as_scale(scale), positive(data_std), keep=keep)


class Pulled(Transform):
  """Made by `proximal`."""

  observation: Observation
  scale: Any
  data_std: Array
  keep: bool = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    seen, told = self.observation.of(cond)
    pred = self.denoise(x, t, told, memory)
    spread = value_at(self.scale, jnp.asarray(t)) * spread_of(self.process, t, self.data_std)
    x0 = seen.pulled(pred.x0, spread).astype(pred.x0.dtype)
    return pred._replace(x0=x0) if self.keep else complete(self.process, x, t, x0, pred.aux)
