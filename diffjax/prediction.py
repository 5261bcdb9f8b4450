"""What a network says about x_t, in one currency: the pair (x0, eps) with x_t = alpha x0 + sigma eps.

Every kind of output is linear in the pair, hence one 2 x 2 system a kind (`diffjax.kinds`), solved by hand.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import labels
from diffjax.contracts import Cond, Data, Memory, Params, Time
from diffjax.errors import InputError
from diffjax.kinds import Kind, as_kind
from diffjax.process import Process, expand, over_time
from diffjax.pytree import PyTree

__all__ = ['Pred', 'Denoise', 'Denoiser', 'predict', 'target', 'complete', 'as_denoiser', 'null_of', 'network_of',
           'check_null']  # fmt: skip

Net = Callable[[Any, Any, Array, Any, Array | None], Any]


class Pred(NamedTuple):
  """A prediction of x0 and eps, each like x. `aux` may hold 'memory' (carried to the next evaluation), weights."""

  x0: Data
  eps: Data
  aux: Any = ()


@runtime_checkable
class Denoise(Protocol):
  """The seam between networks and solvers: a pytree that predicts, and knows its process."""

  @property
  def process(self) -> Process:
    """The forward process it was made for."""
    ...

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    """The pair (x0, eps) at x = x_t, and what the next evaluation may remember."""
    ...


def predict(process: Process, kind: str | Kind, x: Data, t: Time, out: Data) -> Pred:
  """The pair (x0, eps) that a network output of this kind stands for at x = x_t; x, out (B, ...), t () or (B,)."""
  kind = as_kind(kind)

  def solve(row: str) -> Any:
    def one(t: Array, x: Array, out: Array) -> Array:
      p, q = getattr(kind(process, jnp.asarray(t)), row)
      return (expand(p, x) * x + expand(q, x) * out).astype(x.dtype)

    return over_time(one, t, x, out)

  return Pred(solve('x0'), solve('eps'))


def target(process: Process, kind: str | Kind, x0: Data, eps: Data, t: Time) -> Any:
  """What a network of this kind should return at x_t = alpha x0 + sigma eps; `predict` inverts it."""
  kind = as_kind(kind)

  def one(t: Array, x0: Array, eps: Array) -> Array:
    a, b = kind(process, jnp.asarray(t)).target
    return (expand(a, x0) * x0 + expand(b, x0) * eps).astype(x0.dtype)

  return over_time(one, t, x0, eps)


def complete(process: Process, x: Data, t: Time, x0: Data, aux: Any = ()) -> Pred:
  """The consistent prediction with this x0: eps = (x - alpha x0) / sigma."""
  return predict(process, 'x0', x, t, x0)._replace(x0=x0, aux=aux)


class Denoiser(PyTree):
  """A network with its parameters, process and kind of output: (x, t, cond) -> Pred.

  `net` is static and compared by equality: a module wrapped by `diffjax.nets.Apply`, or any module-level function
  (params, x, t, cond, key) -> array. The kind scales its input and names the coordinate it embeds.

  Attributes:
    null: the condition that means none, for guidance; None where the network takes no condition.
    untrained: why the network never saw that condition in training; empty where it did.
  """

  params: Params
  process: Process
  kind: Kind
  null: Cond = None
  net: Net = struct.field(pytree_node=False, kw_only=True)
  untrained: str = struct.field(pytree_node=False, kw_only=True, default='')

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    """The pair (x0, eps) that the network stands for at x = x_t."""
    if cond is None and self.null is not None:
      check_null(self)
    out = apply_net(self.net, self.params, self.process, self.kind, x, t, cond=cond)
    out = jax.tree.map(lambda out, x: out.astype(x.dtype), out, x)
    return predict(self.process, self.kind, x, t, out)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the network does not have, see `diffjax.labels`."""
    labels.check(cond, getattr(getattr(self.net, 'module', None), 'classes', 0), field)


def apply_net(
  net: Net, params: Params, process: Process, kind: Kind, x: Data, t: Time, *, cond: Cond = None, key: Any = None
) -> Any:
  """The network's raw output at x_t: its input scaled, its time (B,) in the coordinate of the kind."""
  size = jax.tree.leaves(x)[0].shape[0]
  scaled = over_time(lambda t, x: expand(kind(process, jnp.asarray(t)).c_in, x) * x, t, x)
  network_time = jax.tree.map(lambda t: jnp.broadcast_to(kind(process, jnp.asarray(t)).network_time, (size,)), t)
  return net(params, scaled, network_time, cond, key)


def as_denoiser(function: Callable, process: Process, kind: str | Kind = 'x0', null: Cond = None) -> Denoiser:
  """Any function (x, t, cond) -> array, t in the process's own time (B,), as a denoiser of this kind.

  The function is static: build it once, or each new one compiles anew. Of kind `edm` it is handed c_in x.
  """
  return Denoiser((), process, as_kind(kind).plain(), null, net=Function(function))


class Function(NamedTuple):
  """A function of (x, t, cond) as a network without parameters."""

  function: Callable

  def __call__(self, params: Params, x: Data, t: Time, cond: Cond = None, key: Any = None) -> Any:
    return self.function(x, t, cond)


def null_of(denoise: Any) -> Any:
  """The null condition of the network inside a stack of transforms; None where there is none."""
  while not hasattr(denoise, 'null') and hasattr(denoise, 'denoise'):
    denoise = denoise.denoise
  return getattr(denoise, 'null', None)


def network_of(denoise: Any) -> Any:
  """The innermost denoiser of a stack of transforms."""
  while hasattr(denoise, 'denoise'):
    denoise = denoise.denoise
  return denoise


def check_null(denoise: Any) -> None:
  """Raises InputError where the network in a stack of transforms never saw its null condition in training."""
  untrained = getattr(network_of(denoise), 'untrained', '')
  if untrained:
    raise InputError(f'null: got that of a network that never saw it in training, since {untrained}; allowed: a run '
                     'that was trained with it')  # fmt: skip
