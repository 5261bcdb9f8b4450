"""Analytic preconditioning: a jump's coefficients from two curves of its teacher, so that it begins nearer its end.

On any process with lam = log(alpha / sigma) and y = x / alpha the flow is dy/dlam = D - y. For curves l and r of lam,

    dy/dlam = (l - 1) y + g,   g = D - l y,   and were dg/dlam = r g on all of the way,
    y_s = A y_t + B D_t,   B = e^{L_s - R_t} int_t^s e^{R - L} dlam,   A = e^{L_s - L_t} - l_t B,

L and R the integrals of l - 1 and r. What a network has to learn beside the teacher's D_t is small where g / e^R is
nearly constant: l is the mean of tr(dD/dy) / d, which takes from g what is linear in y, and r the regression of dg/dlam
on g along the teacher's ways. l = r = 0 is DDIM; l = sd^2 / (sd^2 + sigma^2 / alpha^2) the flow of N(0, sd^2).

The curves are a role, 'table', that begins as what the teacher's weights say and is moved by nobody.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from diffjax import keys
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.fewstep.jumps import Jump, settled
from diffjax.kinds import Kind
from diffjax.methods.parts import Parts, Source
from diffjax.prediction import Denoise
from diffjax.process import Process, expand
from diffjax.solvers import heun_transfer
from diffjax.train.roles import Copy

__all__ = ['analytic', 'curves', 'fitted', 'ways']

TABLE = 'table'


def analytic(table: Mapping[str, Array]) -> Partial:
  """The form of a `Jump` with the curves of a table: x_s = alpha_s (A x_t / alpha_t + B x0), x0 what the output tells.

  arXiv:2502.02922

  Args:
    table: 'lam' (n,), evenly rising, and there 'linear' l and 'growth' r, as of `curves`.
  """
  lam, linear, growth = (jnp.asarray(table[name]) for name in ('lam', 'linear', 'growth'))
  h = (lam[-1] - lam[0]) / (len(lam) - 1)
  bend, turn = _slope(linear, h), _slope(growth, h)
  grown, rise = _integral(linear - 1, bend, h), _integral(growth, turn, h)
  k = jnp.exp(rise - grown)
  values = jnp.stack([grown, rise, _integral(k, k * (growth - linear + 1), h), linear])
  return Partial(_analytic, lam[0], h, (values, jnp.stack([linear - 1, growth, k, bend])))


def _slope(y: Array, h: Array) -> Array:
  """The slope of y (n, ...) along its first axis, whose nodes are h apart."""
  return jnp.asarray(jnp.gradient(y, axis=0)) / h


def _integral(y: Array, dy: Array, h: Array) -> Array:
  """The integral of y from the first node, by the trapezoidal rule with its correction by slopes."""
  cells = h / 2 * (y[1:] + y[:-1]) - h**2 / 12 * (dy[1:] - dy[:-1])
  return jnp.concatenate([jnp.zeros_like(y[:1]), jnp.cumsum(cells)])


def _at(lam: Array, first: Array, h: Array, curves: tuple[Array, Array]) -> Array:
  """Cubic Hermite interpolation: curves with their slopes (4, n) at lam (B,), (4, B)."""
  y, dy = curves
  place = jnp.clip((lam - first) / h, 0, y.shape[1] - 1)
  i = jnp.clip(jnp.floor(place).astype(int), 0, y.shape[1] - 2)
  u = place - i
  rise = y[:, i + 1] - y[:, i]
  a, b = h * dy[:, i] - rise, rise - h * dy[:, i + 1]
  return (1 - u) * y[:, i] + u * y[:, i + 1] + u * (1 - u) * ((1 - u) * a + u * b)


def _analytic(
  first: Array, h: Array, curves: tuple[Array, Array], process: Process, kind: Kind, t: Array, s: Array
) -> tuple[Array, Array]:
  (alpha, _), (alpha_s, _) = process.schedule(t), process.schedule(s)
  grown, rise, area, linear = _at(process.lam(t), first, h, curves)
  grown_s, _, area_s, _ = _at(process.lam(s), first, h, curves)
  b = jnp.exp(grown_s - rise) * (area_s - area)
  a = jnp.exp(grown_s - grown) - linear * b
  p, q = kind(process, t).x0
  return settled(t, s, alpha_s * (a / alpha + b * p), alpha_s * b * q)


def ways(denoise: Denoise, shape: tuple[int, ...], points: int, samples: int, cond: Cond = None) -> tuple[Array, ...]:
  """The teacher's flow from noise on times even in lam: t (n,), x / alpha and D (n, B, ...), and tr(dD/dy) / d (n,).

  By Heun's steps; the trace by one random direction a sample. The draws are always the same.

  Args:
    denoise: the teacher.
    shape: of one example.
    points: n.
    samples: B.
    cond: of the samples.
  """
  process = denoise.process
  ts = process.lam_inverse(jnp.linspace(process.lam(process.t_max), process.lam(process.t_min), points))
  k_x, k_v = keys.split(keys.per_sample(jax.random.key(0), samples), 2)
  x = process.prior(k_x, jax.ShapeDtypeStruct((samples, *shape), jnp.float32))

  def step(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Any]:
    t, s, i = row
    alpha = process.schedule(t)[0]
    y = x / alpha
    v = jnp.sign(keys.normal(keys.fold(k_v, i), y))
    x0, moved = jax.jvp(lambda y: denoise(alpha * y, t, cond).x0, (y,), (v,))
    return heun_transfer(denoise, x, t, s, cond).astype(x.dtype), (y, x0, jnp.mean(v * moved))

  rows = ts, jnp.append(ts[1:], ts[-1]), jnp.arange(points)
  return ts, *jax.lax.scan(step, x, rows)[1]


def curves(
  denoise: Denoise,
  shape: tuple[int, ...],
  cond: Cond = None,
  *,
  points: int = 161,
  samples: int = 1024,
  linear: bool = True,
  growth: bool = True,
) -> dict[str, Array]:
  """The table of a teacher: l = E tr(dD/dy) / d and r = E <g, dg/dlam> / E |g|^2, with g of that l, on its own ways.

  Args:
    denoise: the teacher.
    shape: of one example.
    cond: of the samples.
    points: where the curves are told, even in lam.
    samples: whose ways are followed.
    linear: whether l is measured; 0 otherwise.
    growth: whether r is; 0 otherwise.
  """
  ts, y, x0, trace = ways(denoise, shape, points, samples, cond)
  return fitted(denoise.process.lam(ts), y, x0, trace, linear=linear, growth=growth)


def fitted(lam: Array, y: Array, x0: Array, trace: Array, *, linear: bool, growth: bool) -> dict[str, Array]:
  """The table that `curves` makes of `ways`, told in lam (n,)."""
  own = trace if linear else jnp.zeros_like(trace)
  g = x0 - expand(own, y) * y
  slope = _slope(g, (lam[-1] - lam[0]) / (len(lam) - 1))
  over = tuple(range(1, g.ndim))
  rate = jnp.sum(g * slope, over) / jnp.sum(g**2, over) if growth else jnp.zeros_like(own)
  return {'lam': lam, 'linear': own, 'growth': rate}


class Formed(NamedTuple):
  """The form of a method's jumps: roles -> the jump, and how the role of its table begins."""

  jump: Callable[[Mapping[str, Any]], Jump]
  init: Callable[[], dict[str, Any]]
  copies: dict[str, Copy]

  def loss(self, build: Callable[[Jump], Callable]) -> Callable:
    """The objective that `build` makes of a jump, with the form as the roles have it."""
    return lambda roles, batch, key: build(self.jump(roles))(roles, batch, key)


def formed(spec: Any, parts: Parts, jump: Jump, source: Source | None, teacher: Callable | None) -> Formed:
  """What `config.method.form` names: 'through' (`jumps.through`), or 'analytic' and its options, those of `curves`.

  Raises:
    InputError: another name or option, no teacher, or a process whose alpha(t_max) is 0.
  """
  spec = spec or 'through'
  options: dict[str, Any] = dict(name=spec) if isinstance(spec, str) else dict(spec)
  name = options.pop('name', None)
  if name == 'through' and not options:
    return Formed(lambda roles: jump, dict, {})
  known = {'points', 'samples', 'linear', 'growth'}
  if name != 'analytic' or set(options) - known:
    raise InputError(f'form: got {spec!r}; allowed: through, or analytic with {", ".join(sorted(known))}')
  if source is None or teacher is None or not np.isfinite(float(parts.process.lam(parts.process.t_max))):
    raise InputError('form: got analytic; allowed: through, without a teacher or where alpha(t_max) is 0')
  samples = options.get('samples', 1024)
  cond = jnp.arange(samples) % parts.classes if parts.classes else None

  def table(params: Any) -> dict[str, Array]:
    return curves(teacher({'teacher': params}), parts.shape, cond, **options)

  late = lambda roles: jump.replace(form=analytic(roles[TABLE]))  # noqa: E731
  if source.kind is None:  # a closed form has no weights to begin as
    return Formed(late, lambda: {TABLE: table(())}, {})
  return Formed(late, dict, {TABLE: Copy('teacher', begins=table)})
