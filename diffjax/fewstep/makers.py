"""Generators of data from x_t and a latent: x0' = G(x_t, t, z), whatever kind the network's output is of."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys, nets
from diffjax.contracts import Cond, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.fewstep.jumps import coordinate
from diffjax.kinds import Kind
from diffjax.methods.parts import Parts
from diffjax.prediction import predict
from diffjax.process import Process, expand
from diffjax.pytree import PyTree

__all__ = ['Latent', 'Maker', 'latent_net', 'maker_of']


class Latent(NamedTuple):
  """A network that is handed noise as further channels: (params, x, t, {'label', 'latent'}) -> like x.

  Attributes:
    net: of as many outputs as x has channels.
    size: the channels of noise, one draw a position; 0 for none.
  """

  net: Any
  size: int

  @property
  def module(self) -> Any:
    """That of the network."""
    return self.net.module

  def widened(self, x: Array) -> Array:
    """Zeros in the shape of the noise for x."""
    return jnp.zeros((*x.shape[:-1], self.size), x.dtype)

  def init(self, key: Array, x: Array, t: Array, cond: Cond = None) -> Params:
    """Fresh weights."""
    return self.net.init(key, jnp.concatenate([x, self.widened(x)], -1), t, cond)

  def __call__(self, params: Params, x: Array, t: Array, cond: Any = None, key: Any = None) -> Array:
    """What the network returns for x and the noise of cond."""
    out = self.net(params, jnp.concatenate([x, cond['latent']], -1), t, cond['label'], key)
    return out.reshape(x.shape)


def latent_net(net: Any, shape: tuple[int, ...], size: int) -> Latent:
  """A network with so many channels of noise beside x, its outputs as many as x has.

  Raises:
    InputError: a negative number of channels, or a network that cannot be told how many outputs it has.
  """
  if not (isinstance(size, int) and size >= 0):
    raise InputError(f'latent: got {size!r}; allowed: a whole number of at least 0')
  module: Any = getattr(net, 'module', None)
  if size and not hasattr(module, 'out_channels'):
    raise InputError(f'latent: got {size} for a network whose outputs are as many as its inputs; allowed: 0, or a '
                     'network of out_channels')  # fmt: skip
  if not size:
    return Latent(net, 0)
  outputs = math.prod(shape) if isinstance(module, nets.MLP) else shape[-1]
  return Latent(dataclasses.replace(net, module=module.clone(out_channels=outputs)), size)


class Maker(PyTree):
  """The generator of a stride: (params, x_t, t, z, cond) -> x0', whatever kind the network's output is of."""

  process: Process
  kind: Kind
  net: Latent = struct.field(pytree_node=False, kw_only=True)

  def latent(self, key_batch: KeyBatch, x: Array) -> Array:
    """The noise z for x, a draw a key."""
    return keys.normal(key_batch, self.net.widened(x))

  def __call__(self, params: Params, x: Array, t: Array, z: Array, cond: Cond = None, key: Any = None) -> Array:
    """The data that x_t are taken to have come from."""
    c_in, told = coordinate(self.process, self.kind, t)
    out = self.net(params, expand(c_in, x) * x, told, {'label': cond, 'latent': z}, key)
    return predict(self.process, self.kind, x, t, out.astype(x.dtype)).x0


def maker_of(parts: Parts, latent: int) -> Maker:
  """The student as the generator of a stride; `parts.net` is its network without a latent.

  Raises:
    InputError: several modalities or tokens; a kind from which x0 cannot be told at t_max; what `latent_net` refuses.
  """
  if isinstance(parts.shape, dict) or parts.vocabulary:
    raise InputError(f'data: got those of shape {parts.shape}; allowed for strides: numbers of one modality')
  if parts.kind.needs_signal and not np.isfinite(float(parts.process.lam(parts.process.t_max))):
    raise InputError('loss.kind: got one that needs a signal where alpha(t_max) is 0; allowed: x0, v, velocity, edm')
  return Maker(parts.process, parts.kind, net=latent_net(parts.net, parts.shape, latent))
