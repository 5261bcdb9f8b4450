"""Blockwise flow matching: a small network for each segment of time, told features of x_t that are found once there."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, labels
from diffjax.contracts import Cond, Memory, Params, Time
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.mean_flow import straight
from diffjax.kinds import Kind
from diffjax.losses.denoising import mean_square
from diffjax.methods import Parts, Sampling, Solved, under_solver
from diffjax.metrics.digits import maps
from diffjax.nets import Apply, DiT
from diffjax.nets.transformer import patchify
from diffjax.prediction import Pred, check_null, predict, target
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.train.roles import Method, Phase

__all__ = ['blockwise_flow_matching']

ENCODERS: dict[str, Callable[[Array], Array]] = dict(digits=maps)
HIDDEN = 64  # of the map by which features are compared with the encoder's


def blockwise_flow_matching(
  parts: Parts,
  *,
  segments: int = 6,
  features: int = 0,
  feature_depth: int = 4,
  align: float = 0.05,
  encoder: str = 'digits',
  residual_depth: int = 0,
) -> Method:
  """Flow matching by one network a segment of time: |v_m(x_t, t, F) - (eps - x0)|^2, t even on segment m.

  A batch is split evenly over the segments. F = f(x_t, t), one vector a token, is part of what modulates it, and is
  drawn to those of a frozen encoder, - align mean cos(W F, E(x0)). In sampling a second network spares f but where a
  segment begins, at t_in: F = F_in + (t_in - t) / (t_in - t_out) r(x_t, t), learned alone by |F - f(x_t, t)|^2.

  arXiv:2510.21167; depths and weight are those of its release at a small scale

  Args:
    parts: what the config has made; flow, kind `velocity`; the network is that of a segment, a DiT where it is told F.
    segments: m = 0 .. segments - 1, of equal length; m serves (tau_m, tau_{m+1}].
    features: of a token's F, a multiple of the squared patch; 0 leaves F out.
    feature_depth: the blocks of f, otherwise like the network.
    align: the weight of the encoder's features; 0 leaves them out.
    encoder: x0 -> (B, N, d), 'digits' for maps of the digits' classifier on 2 x 2 patches.
    residual_depth: the blocks of r; 0 to ask f at every step.

  Raises:
    InputError: another process, kind or network; a number out of its range; a batch that is not split evenly.
  """
  straight(parts, 'blockwise_flow_matching')
  if segments < 1 or align < 0:
    raise InputError(f'segments, align: got {segments}, {align}; allowed: at least one segment, and a weight')
  told = _told(parts, features, feature_depth, residual_depth) if features else None
  if features and align and encoder not in ENCODERS:
    raise InputError(f'encoder: got {encoder!r}; allowed: {", ".join(ENCODERS)}, or align = 0')
  own = Blocks(parts, segments, told, align if features else 0.0, ENCODERS.get(encoder))
  phases = [Phase('student', own.matching, parts.optimiser())]
  if own.spares:
    phases.append(Phase('residual', own.sparing, parts.optimiser()))

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, own.denoiser(roles), sampling)

  return Method(
    tuple(phases),
    averaged=tuple(phase.role for phase in phases),
    init=own.init,
    denoiser=own.denoiser,
    generator=generator,
  )


def _told(parts: Parts, features: int, depth: int, residual_depth: int) -> tuple[Apply, Apply, Apply | None]:
  """The networks of a segment, of the features and of what spares them, all like that of the config."""
  module = getattr(parts.net, 'module', None)
  if not isinstance(module, DiT) or features % module.patch**2:
    raise InputError(f'net, features: got {type(module).__name__}, {features}; allowed: a dit, and a multiple of its '
                     'squared patch; or features = 0')  # fmt: skip
  if depth < 1 or residual_depth < 0:
    raise InputError(f'feature_depth, residual_depth: got {depth}, {residual_depth}; allowed: at least 1, at least 0')
  of = lambda depth: Apply(module.clone(depth=depth, out_channels=features // module.patch**2))  # noqa: E731
  return Apply(module.clone(tokens=features)), of(depth), of(residual_depth) if residual_depth else None


class Blocks:
  """The objectives, and what they make of roles; see `blockwise_flow_matching`."""

  def __init__(self, parts: Parts, segments: int, told: Any, align: float, encoder: Any):
    self.parts, self.segments, self.align, self.encoder = parts, segments, align, encoder
    several: tuple[Any, Any, Any] = told or (parts.net, None, None)
    self.net, self.features, self.residual = several

  @property
  def spares(self) -> bool:
    """Whether a network stands in for the features between the ends of segments."""
    return self.residual is not None

  def init(self, key: Array) -> dict[str, Any]:
    """Fresh parameters: of all segments with the segment first, of the features, and of what spares them."""
    k_net, k_f, k_r, k_w = jax.random.split(key, 4)
    x, t, label = self.parts.inputs(1)
    cond: Any = label
    made: dict[str, Any] = {}
    student: dict[str, Any] = {}
    if self.features:
      student['features'] = self.features.init(k_f, x, t, label)
      first = tokens_of(self.features, student['features'], x, t, label)
      cond = {'label': label, 'tokens': first}
      if self.align:
        size = jax.eval_shape(self.encoder, x).shape
        if size[1] != first.shape[1]:
          raise InputError(f'encoder: got {size[1]} tokens; allowed: {first.shape[1]}, those of the network')
        student['compared'] = _linear(k_w, first.shape[2], size[2])
    if self.spares:
      made['residual'] = self.residual.init(k_r, x, t, label)
    student['segments'] = jax.vmap(lambda k: self.net.init(k, x, t, cond))(jax.random.split(k_net, self.segments))
    return {'student': student, **made}

  def drawn(self, batch: Any, key: Array) -> tuple[Array, Array, Array, Array]:
    """x0, eps and the times of a batch, whose rows are split evenly over the segments, and their segments' first times.

    Raises:
      InputError: they cannot be.
    """
    x0 = widened(batch['x'])
    if len(x0) % self.segments:
      raise InputError(f'train.batch: got {len(x0)}; allowed: a multiple of the {self.segments} segments')
    k_t, k_eps = keys.split(keys.per_sample(key, len(x0)), 2)
    process = self.parts.process
    m = jnp.repeat(jnp.arange(self.segments), len(x0) // self.segments)
    span = process.t_max / self.segments
    t = jnp.maximum(span * (m + 1 - keys.uniform(k_t)), process.t_min)
    return x0, keys.normal(k_eps, x0), t, span * (m + 1)

  def matching(self, roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    """The loss of the segments' networks and the features."""
    x0, eps, t, _ = self.drawn(batch, key)
    process, kind, student = self.parts.process, self.parts.kind, roles['student']
    x, told = process.perturb(x0, eps, t), kind(process, t)
    shown, label, aux = expand(told.c_in, x0) * x, batch.get('cond'), {}
    f: Any = None
    if self.features:
      f = tokens_of(self.features, student['features'], shown, told.network_time, label)
    rows = lambda a: a.reshape(self.segments, -1, *a.shape[1:])  # noqa: E731
    cond = label if f is None else {'label': label, 'tokens': f}
    out = jax.vmap(self.net)(student['segments'], *jax.tree.map(rows, (shown, told.network_time, cond)))
    error = mean_square(out.reshape(x0.shape), target(process, kind, x0, eps, t))
    values = error
    if self.align and f is not None:
      aux['alignment'] = _likeness(_mapped(student['compared'], f), stop_gradient(self.encoder(x0)))
      values = error - self.align * aux['alignment']
    return values, {'t': t, 'error': error, **aux}

  def sparing(self, roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    """The loss of what stands in for the features, at rest itself where they were found."""
    x0, eps, t, first = self.drawn(batch, key)
    frozen, label = stop_gradient(roles['student']['features']), batch.get('cond')
    f_in, f = (self.seen(self.features, frozen, self.parts.process.perturb(x0, eps, u), u, label) for u in (first, t))
    moved = self.seen(self.residual, roles['residual'], self.parts.process.perturb(x0, eps, t), t, label)
    error = mean_square(f_in + expand((first - t) / (self.parts.process.t_max / self.segments), f) * moved, f)
    return error, {'t': t, 'error': error}

  def seen(self, net: Any, params: Params, x: Array, t: Array, label: Any) -> Array:
    """The tokens of a network that sees x at t."""
    told = self.parts.kind(self.parts.process, t)
    return tokens_of(net, params, expand(told.c_in, x) * x, told.network_time, label)

  def denoiser(self, roles: Mapping[str, Any]) -> 'Blockwise':
    """The flow of these roles, as a denoiser that remembers the features."""
    nets = self.net, self.features, self.residual
    params = roles['student'], roles.get('residual', ())
    return Blockwise(params, self.parts.process, self.parts.kind, self.parts.null, nets=nets, segments=self.segments)


class Blockwise(PyTree):
  """The denoiser whose network is that of the segment in which t lies; at a number t it remembers the features.

  Attributes:
    params: of the student's and of what spares features, () without.
    nets: of a segment, of the features and of what spares them; None without.
  """

  params: tuple[Params, Params]
  process: Process
  kind: Kind
  null: Any
  nets: tuple[Any, Any, Any] = struct.field(pytree_node=False, kw_only=True)
  segments: int = struct.field(pytree_node=False, kw_only=True)
  untrained: str = struct.field(pytree_node=False, default='its method drops no labels')

  def cost(self, t: float) -> int:
    """Two networks an evaluation where features are told, one otherwise."""
    return 1 if self.nets[1] is None else 2

  def segment(self, t: Time) -> Array:
    """The m with t in (tau_m, tau_{m+1}]; ends that are missed by rounding count as met."""
    place = jnp.asarray(t) * self.segments / self.process.t_max
    return jnp.clip(jnp.ceil(place - 1e-4).astype(int) - 1, 0, self.segments - 1)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the networks do not have."""
    labels.check(cond, getattr(self.nets[0].module, 'classes', 0), field)

  def __call__(self, x: Array, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    """The pair (x0, eps) at x = x_t; t is (B,) or a number, and only then memory is used."""
    if cond is None and self.null is not None:
      check_null(self)
    each = jnp.broadcast_to(jnp.asarray(t, x.dtype), (len(x),))
    told, aux = self.kind(self.process, each), ()
    shown, given = expand(told.c_in, x) * x, cond
    m, params = self.segment(t), self.params[0]['segments']
    if self.nets[1] is not None:
      f, kept = self._features(shown, each, m, told.network_time, cond, memory if jnp.ndim(t) == 0 else None)
      given = {'label': cond, 'tokens': f}
      aux = {} if jnp.ndim(t) else {'memory': kept}
    if jnp.ndim(t) == 0:
      out = self.nets[0](jax.tree.map(lambda p: p[m], params), shown, told.network_time, given)
    else:
      one = lambda m, *row: self.nets[0](jax.tree.map(lambda p: p[m], params), *_alone(row))[0]  # noqa: E731
      out = jax.vmap(one)(m, shown, told.network_time, given)
    return predict(self.process, self.kind, x, each, out.astype(x.dtype))._replace(aux=aux)

  def _features(
    self, shown: Array, t: Array, m: Array, told: Array, cond: Cond, memory: Memory
  ) -> tuple[Array, dict[str, Array]]:
    """F at t, and what is kept of the segment: F, t and m + 1 where it began."""
    (student, residual), (_, net, spare) = self.params, self.nets
    fresh = lambda: tokens_of(net, student['features'], shown, told, cond)  # noqa: E731
    if spare is None or memory is None:
      f = fresh()
      return f, {'tokens': f, 't': t, 'segment': jnp.broadcast_to(m + 1, t.shape)}
    here = memory['segment'][0] == m + 1

    def again() -> tuple[Array, Array]:
      out = (m / self.segments) * self.process.t_max
      share = (memory['t'] - t) / (memory['t'] - out)
      moved = tokens_of(spare, residual, shown, told, cond)
      return memory['tokens'] + expand(share, moved) * moved, memory['t']

    f, began = jax.lax.cond(here, again, lambda: (fresh(), t))
    kept = jnp.where(here, memory['tokens'], f)
    return f, {'tokens': kept, 't': began, 'segment': jnp.broadcast_to(m + 1, t.shape)}


def tokens_of(net: Apply, params: Params, x: Array, t: Array, cond: Cond) -> Array:
  """What a network of many channels returns, one vector a patch, (B, N, features)."""
  return patchify(net(params, x, t, cond), net.module.patch)  # type: ignore[attr-defined]


def _alone(row: tuple) -> Any:
  return jax.tree.map(lambda a: a[None], row)


def _linear(key: Array, size: int, out: int) -> dict[str, Array]:
  first, second = jax.random.split(key)
  return {
    'in': jax.random.normal(first, (size, HIDDEN)) / size**0.5,
    'bias': jnp.zeros((HIDDEN,)),
    'out': jax.random.normal(second, (HIDDEN, out)) / HIDDEN**0.5,
  }


def _mapped(params: Params, f: Array) -> Array:
  return jax.nn.silu(f @ params['in'] + params['bias']) @ params['out']


def _likeness(a: Array, b: Array) -> Array:
  """The mean over tokens of the cosine between two vectors, (B,)."""
  dot = jnp.sum(a * b, -1)
  return jnp.mean(dot / jnp.sqrt(jnp.sum(a**2, -1) * jnp.sum(b**2, -1) + 1e-12), -1)
