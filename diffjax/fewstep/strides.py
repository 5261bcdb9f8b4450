"""Strides of a coarse chain from noise to data: a generator of data at each, judged where the stride lands.

    x0' = G(x_t, t, z),    x_s' ~ q(x_s | x_t, x0')  or  x_s' = alpha_s x0' + sigma_s eps'

against x_s of the data, from which x_t came by the forward process. The latent z makes x0' a draw, not a mean: a stride
is long, and what x_t came from has many modes.   arXiv:2112.07804, arXiv:2311.09257
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.adversarial import Draw, Loss, Shown
from diffjax.fewstep.iterated import law_of
from diffjax.fewstep.jumps import coordinate
from diffjax.fewstep.makers import Maker
from diffjax.fewstep.pairs import Law
from diffjax.losses.denoising import mean_square
from diffjax.methods.parts import Parts, Sampling
from diffjax.noise_levels import checked
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.solvers import renoise

__all__ = ['Strides', 'in_strides', 'landing', 'made_stride',
  'real_stride', 'reconstruction', 'taken']  # fmt: skip


class Taken(NamedTuple):
  """A stride of the forward process, taken backwards: x_s and the x_t that came from it, their times and condition."""

  x0: Array
  x_s: Array
  x_t: Array
  t: Array
  s: Array
  cond: Cond


def taken(process: Process, law: Law, batch: Any, key_batch: KeyBatch) -> Taken:
  """Strides of the data of a batch; one key draws one stride, whoever asks."""
  x0 = widened(batch['x'])
  k_t, k_s, k_up = keys.split(keys.fold(key_batch, 0), 3)
  at = law(process, jnp.zeros(()), k_t)
  x_s = process.perturb(x0, keys.normal(k_s, x0), at.s)
  return Taken(x0, x_s, renoise(process, x_s, at.s, at.t, keys.normal(k_up, x0)), at.t, at.s, batch.get('cond'))


def landing(process: Process, x: Array, x0: Array, t: Array, s: Array, noise: Array, posterior: bool) -> Array:
  """Where x_t lands at s with the data x0: a draw of q(x_s | x_t, x0), or of the forward q(x_s | x0)."""
  if not posterior:
    return process.perturb(x0, noise, s)
  mean, std = process.posterior(x, x0, t, s)
  return mean + std * noise


def real_stride(maker: Maker, law: Law, *, beside: bool) -> Draw:
  """Where the forward process was at s, and beside it the x_t that it went on to, where that is told."""

  def draw(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    stride = taken(maker.process, law, batch, key_batch)
    return _shown(maker, stride, stride.x_s, beside)

  return draw


def made_stride(maker: Maker, law: Law, *, posterior: bool, beside: bool, role: str = 'student') -> Draw:
  """Where the generator lands from x_t, with a fresh latent."""

  def draw(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    stride, x0, noise = made_from(maker, law, roles[role], batch, key_batch)
    return _shown(maker, stride, landing(maker.process, stride.x_t, x0, stride.t, stride.s, noise, posterior), beside)

  return draw


def made_from(maker: Maker, law: Law, params: Params, batch: Any, key_batch: KeyBatch) -> tuple[Taken, Array, Array]:
  """Strides of a batch, the data that the generator makes of their x_t with a fresh latent, and noise to land with."""
  stride = taken(maker.process, law, batch, key_batch)
  k_z, k_land, k_net = keys.split(keys.fold(key_batch, 1), 3)
  x0 = maker(params, stride.x_t, stride.t, maker.latent(k_z, stride.x_t), stride.cond, k_net)
  return stride, x0, keys.normal(k_land, x0)


def _shown(maker: Maker, stride: Taken, x: Array, beside: bool) -> Shown:
  c_in = coordinate(maker.process, maker.kind, stride.t)[0]
  return Shown(x, stride.s, stride.cond, expand(c_in, x) * stride.x_t if beside else None)


def reconstruction(maker: Maker, law: Law, role: str = 'student') -> Loss:
  """The error of the data made at each stride, gamma mean |x0 - G(x_t, t, z)|^2, gamma = alpha_t^2 / (2 sigma_{t|s}^2).

  sigma_{t|s}^2 = sigma_t^2 (1 - e^{-2h}), h = lam_s - lam_t. To the data it is half the error of eps.
  arXiv:2311.09257 eq. 10
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    process = maker.process
    stride, x0, _ = made_from(maker, law, roles[role], batch, keys.per_sample(key, len(batch['x'])))
    error = mean_square(x0, stride.x0)
    h = process.lam(stride.s) - process.lam(stride.t)
    gamma = jnp.exp(2 * process.lam(stride.t)) / (-2 * jnp.expm1(-2 * h))
    return gamma * error, {'t': stride.t, 'error': error}

  return loss


class Strides(PyTree):
  """The generator of a chain of strides, from the noise at the first time to data.

  Attributes:
    params: of the network.
    maker: what makes data of x_t.
    ts: (n + 1,) times, falling to 0.
    law: as of `Iterated`.
    shape: of one sample.
    posterior: how a stride lands, see `landing`.
  """

  params: Params
  maker: Maker
  ts: Array
  law: tuple[Array, Array, Array]
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  posterior: bool = struct.field(pytree_node=False)

  @property
  def nfe(self) -> int:
    """Strides of a sample."""
    return len(self.ts) - 1

  @property
  def cost(self) -> float:
    """Forwards of a sample."""
    return float(self.nfe)

  @property
  def times(self) -> np.ndarray:
    """The time from which each stride goes."""
    return np.asarray(self.ts)[:-1]

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the network does not have."""
    labels.check(cond, getattr(self.maker.net.module, 'classes', 0), field)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    return self._run(key_batch, cond, shown=False)[0]

  def path(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[Data, tuple[Data, Data]]:
    """The samples, the points before each stride and the data made of them, (n, B, ...) each."""
    return self._run(key_batch, cond, shown=True)

  def _run(self, key_batch: KeyBatch, cond: Cond, shown: bool) -> tuple[Data, Any]:
    begin, own = keys.split(key_batch, 2)
    process = self.maker.process
    x = process.start(begin, jax.ShapeDtypeStruct((len(key_batch), *self.shape), jnp.float32), *self.law)

    def step(x: Array, row: tuple) -> tuple[Array, Any]:
      t, s, i = row
      t, s = (jnp.full(len(x), u, x.dtype) for u in (t, s))
      k_z, k_land = keys.split(keys.fold(own, i), 2)
      x0 = self.maker(self.params, x, t, self.maker.latent(k_z, x), cond)
      after = landing(process, x, x0, t, s, keys.normal(k_land, x), self.posterior)
      return after.astype(x.dtype), (x, x0) if shown else ()

    return jax.lax.scan(step, x, (self.ts[:-1], self.ts[1:], jnp.arange(self.nfe)))


def in_strides(
  parts: Parts, maker: Maker, params: Params, sampling: Sampling, *, posterior: bool = True, only: Any = None
) -> Strides:
  """A recipe's generator: strides between the times of `config.sampling`.

  Args:
    parts: what the recipe was handed.
    maker: what makes data of x_t.
    params: of its network.
    sampling: how `config.sampling` asks to draw.
    posterior: how a stride lands.
    only: the one grid for which it was trained, where there is one.

  Raises:
    InputError: guidance, which strides do not take, or another grid.
  """
  if sampling.guided(maker) is not maker:  # type: ignore[arg-type]
    raise InputError('guidance: got some; allowed: none, since no network was trained without labels')
  ts = checked(parts.process, sampling.grid())
  if only is not None and (len(ts) != len(only) or not np.allclose(ts, only, atol=1e-6 * only[0])):
    raise InputError(f'steps, grid: got {len(ts) - 1} from {ts[0]:.4g} to {ts[-1]:.4g}; allowed: the grid uniform of '
                     f'{len(only) - 1} steps, for which the generator was trained')  # fmt: skip
  if ts[-1] != 0:
    raise InputError(f'grid: got one that ends at {ts[-1]:.4g}; allowed: one that ends at 0, the data')
  return Strides(params, maker, jnp.asarray(ts, float), law_of(sampling, ts[0]), tuple(parts.shape), posterior)
