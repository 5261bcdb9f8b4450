"""The recipes of point clouds: a denoiser about the mean, and one that a second network pushes to a property."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import guidance, keys, nets
from diffjax.contracts import Cond, Data, KeyBatch, Params, Time
from diffjax.errors import InputError
from diffjax.kinds import Kind
from diffjax.losses.denoising import mean_square, started
from diffjax.losses.times import uniform
from diffjax.methods.generator import Solved, under_solver
from diffjax.methods.parts import Parts, Sampling
from diffjax.prediction import apply_net
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.train.roles import Method, Phase

__all__ = ['equivariant', 'equivariant_energy']


def equivariant(parts: Parts) -> Method:
  """Denoising of point clouds (N, 3 + F) about their mean, for a network that turns with them.

  The loss is `config.loss`; what it says of the places' mean, which no network can predict, is a constant. Where clouds
  differ in size, `config.loss.given = ('mask',)`.   arXiv:2203.17003

  Raises:
    InputError: data of another shape.
  """
  _check(parts)
  untrained = 'config.loss.drop_cond is 0' if parts.classes and not parts.loss_options.get('drop_cond') else ''

  def denoiser(roles: Mapping[str, Any]) -> Any:
    return guidance.centred(parts.denoiser(roles['student'], untrained))

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, denoiser(roles), sampling)

  return Method(
    (Phase('student', parts.loss, parts.optimiser()),),
    init=lambda key: {'student': parts.init(key)},
    denoiser=denoiser,
    generator=generator,
    needs=parts.given,
    conditions=parts.given,
  )


def equivariant_energy(parts: Parts, predictor: Any = None, scale: float = 1.0) -> Method:
  """EEGSDE: `equivariant`, and a network that reads a property off noisy clouds, by whose error sampling is guided.

  The role 'predictor' learns g(x_t, t) = E[c | x_t] of the property c, the data's 'source', by its square error; the
  student is told c too. Sampling follows `guidance.property_energy` of it. A guide that no rotation changes, on a
  denoiser that turns, gives samples whose law no rotation changes.   arXiv:2209.15408

  Args:
    parts: with `config.loss.given` holding 'source'.
    predictor: its network, a dict of a name of `nets` and its options; None for an egnn. It has as many outputs as c.
    scale: of the energy, 0 for the conditional model alone.

  Raises:
    InputError: data of another shape or without a source, a network of another name or options, a negative scale.
  """
  if 'source' not in parts.given:
    raise InputError(f'loss.given: got {parts.given}; allowed: source among them, the property that is asked for')
  if not scale >= 0:
    raise InputError(f'scale: got {scale}; allowed: a number of at least 0')
  plain, net = equivariant(parts), _predictor(parts, predictor)
  told = tuple(name for name in parts.given if name != 'source')

  def loss(roles: dict[str, Any], batch: Any, key: KeyBatch) -> tuple[Array, dict[str, Array]]:
    own = keys.per_sample(key, len(batch['x']))
    x0, eps, t, _, _ = started(parts.process, uniform(), batch, own)
    reader = Reader(roles['predictor'], parts.process, parts.kind, net=net)
    out = reader(parts.process.perturb(x0, eps, t), t, {name: batch[name] for name in told})
    error = mean_square(out, batch['source'].reshape(out.shape))
    return error, {'t': t, 'error': error}

  def init(key: Array) -> dict[str, Params]:
    x, t, _ = parts.inputs(1)
    cond = {name: jnp.zeros((1, *parts.others[name])) for name in told}
    return {**plain.init(key), 'predictor': net.init(jax.random.fold_in(key, 1), x, t, cond)}  # type: ignore[misc]

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    reader = Reader(roles['predictor'], parts.process, parts.kind, net=net)
    return under_solver(parts, guidance.property_energy(plain.denoiser(roles), reader, scale), sampling)  # type: ignore[misc]

  return Method(
    (*plain.phases, Phase('predictor', loss, parts.optimiser())),
    averaged=('student', 'predictor'),
    init=init,
    denoiser=plain.denoiser,
    generator=generator,
    needs=parts.given,
    conditions=parts.given,
  )


class Reader(PyTree):
  """What a network reads off noisy data: (x, t, cond) -> (B, k), told what cond holds but for the 'source'."""

  params: Params
  process: Process
  kind: Kind
  net: Any = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None) -> Array:
    """The network's output at x = x_t."""
    told = {name: value for name, value in (cond or {}).items() if name not in ('source', 'label')}
    return apply_net(self.net, self.params, self.process, self.kind, x, t, cond=told)


def _predictor(parts: Parts, spec: Any) -> nets.Apply:
  options = dict(name=spec) if isinstance(spec, str) else dict(spec or dict(name='egnn'))
  name, shape = options.pop('name', None), parts.others['source']
  if name not in ('egnn', 'mlp') or len(shape) != 1:
    raise InputError(f'predictor: got {name!r} for a source of shape {shape}; allowed: egnn or mlp, for one axis')
  try:
    return getattr(nets, name)(**options, out_channels=shape[0])
  except TypeError:
    raise InputError(f'predictor: got {name} with {", ".join(options)}; allowed: the options of {name}') from None


def _check(parts: Parts) -> None:
  if isinstance(parts.shape, dict) or len(parts.shape) != 2 or parts.shape[1] < 3:
    raise InputError(f'got data of shape {parts.shape}; allowed: point clouds (N, 3 + features)')
