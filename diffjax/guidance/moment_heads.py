"""Denoisers that know moments of the noise, which they return in `Pred.aux`, each like x.

    'eps2' = E[eps^2 | x]    'eps3' = E[eps^3 | x]    'residual2' = E[(eps - eps_hat)^2 | x] for their own eps_hat

and that eps_hat as 'eps', since a transform around the denoiser changes `Pred.eps` and not its moments.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Params, Time
from diffjax.errors import InputError
from diffjax.kinds import Kind, as_kind
from diffjax.prediction import Denoise, Net, Pred, apply_net
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['with_moments']

MOMENTS = ('eps2', 'eps3', 'residual2')


def with_moments(
  denoise: Denoise, net: Net, params: Params, names: tuple[str, ...] = ('eps2',), kind: str | Kind = 'eps'
) -> 'WithMoments':
  """The denoiser with these moments of the noise in its `aux`, from one head network of len(names) blocks of channels.

  Args:
    denoise: what is asked for predictions.
    net: (params, x, t, cond, key) -> (B, ..., len(names) * channels), trained by `diffjax.losses.moments` with the
      same names and kind.
    params: the head network's parameters.
    names: of 'eps2', 'eps3', 'residual2', in the order of the blocks.
    kind: how the head is handed x and t; 'edm' scales them, all others do not.

  Raises:
    InputError: a name that is no moment, none, or one twice.
  """
  return WithMoments(denoise, params, as_kind(kind), net=net, names=checked_names(names))


class WithMoments(PyTree):
  """Made by `with_moments`."""

  denoise: Denoise
  params: Params
  kind: Kind
  net: Net = struct.field(pytree_node=False, kw_only=True)
  names: tuple[str, ...] = struct.field(pytree_node=False, kw_only=True)

  @property
  def process(self) -> Process:
    return self.denoise.process

  def cost(self, t: float) -> int:
    """One forward more than the denoiser inside."""
    inner = getattr(self.denoise, 'cost', None)
    return 1 + (1 if inner is None else inner(t))

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    heads = blocks(self.names, apply_net(self.net, self.params, self.process, self.kind, x, t, cond=cond), x)
    aux = pred.aux if isinstance(pred.aux, dict) else {}
    return pred._replace(aux=aux | {'eps': pred.eps} | heads)


def checked_names(names: Any) -> tuple[str, ...]:
  """The names as a tuple; InputError unless they are different moments, one at least."""
  names = (names,) if isinstance(names, str) else tuple(names)
  if not names or len(set(names)) < len(names) or set(names) - set(MOMENTS):
    raise InputError(f'names: got {names}; allowed: one or more of {", ".join(MOMENTS)}, each once')
  return names


def blocks(names: tuple[str, ...], out: Data, x: Data) -> dict[str, Any]:
  """The output of a head network cut into its moments, each with the shape and dtype of x."""

  def cut(out: Array, x: Array) -> Array:
    if out.shape != (*x.shape[:-1], len(names) * x.shape[-1]):
      raise InputError(f'net: got an output of shape {out.shape} for x of {x.shape} and {len(names)} moments; allowed: '
                       f'{len(names)} times the channels (out_channels={len(names) * x.shape[-1]})')  # fmt: skip
    return out.astype(x.dtype)

  out = jax.tree.map(cut, out, x)
  return {name: jax.tree.map(lambda o, i=i: jnp.split(o, len(names), -1)[i], out) for i, name in enumerate(names)}
