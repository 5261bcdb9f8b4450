"""The Fokker-Planck residual of a network that is a log-density: zero where it is the law of a diffusion.

    R = d_t u + div F + F . grad u - g^2 (lap u + |grad u|^2) / 2        of dx = F dt + g dw, here F = f x

Where R = 0, and the law at t_max is exp u, the probability-flow ODE and the SDE of the score grad u draw one law.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import divergence as traces
from diffjax import keys
from diffjax.contracts import Cond, Data, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.kinds import as_kind
from diffjax.losses.denoising import Loss, mean_square, started
from diffjax.losses.times import TimeLaw, uniform
from diffjax.prediction import Net
from diffjax.process import Process

__all__ = ['Potential', 'fokker_planck', 'residual']


class Potential(NamedTuple):
  """A network read as a log-density up to a constant, whose output, of kind `score`, is its gradient.

  u = sum of the outputs of `net` - |x|^2 / (2 scale), the law of pure noise and what the network adds to it.
  """

  net: Net
  scale: float = 1.0

  @property
  def module(self) -> Any:
    """That of the network, which knows its classes."""
    return getattr(self.net, 'module', None)

  def log_density(self, params: Params, x: Data, t: Array, cond: Cond = None, key: Any = None) -> Array:
    """The log-density u (B,), up to a constant, at x (B, ...)."""
    out = widened(self.net(params, x, t, cond, key)).reshape(len(x), -1)
    return jnp.sum(out, axis=-1) - jnp.sum(widened(x).reshape(len(x), -1) ** 2, axis=-1) / (2 * self.scale)

  def __call__(self, params: Params, x: Data, t: Array, cond: Cond = None, key: Any = None) -> Array:
    """The gradient of the log-density, like x."""
    return jax.grad(lambda x: jnp.sum(self.log_density(params, x, t, cond, key)))(x)


def residual(process: Process, log_density: Any, x: Array, t: Array, probes: Array | None = None) -> Array:
  """The residual R (B,) of a log-density (x (B, d), t (B,)) -> (B,) at these points.

  Args:
    process: the forward process, whose drift is f(t) x.
    log_density: u, up to a constant in x and t.
    x: (B, d).
    t: (B,).
    probes: (m, B, d) for the Laplacian; None computes it exactly, by d jvps of the gradient.
  """
  d = x.shape[1]
  slope = lambda x: jax.grad(lambda x: jnp.sum(log_density(x, t)))(x)  # noqa: E731
  name = 'exact' if probes is None else 'rademacher'
  given = jnp.zeros((0, *x.shape), x.dtype) if probes is None else probes
  (grad, _), laplacian = traces.with_trace(name, lambda x: (slope(x), ()), x, given)
  rate = jax.jvp(lambda t: log_density(x, t), (t,), (jnp.ones_like(t),))[1]
  f, g2 = process.drift(t), process.g2(t)
  return rate + f * (d + jnp.sum(x * grad, -1)) - g2 / 2 * (laplacian + jnp.sum(grad**2, -1))


def fokker_planck(
  process: Process,
  net: Potential,
  *,
  weight: float = 1.0,
  box: float = 0.0,
  probe: str = 'rademacher',
  times: TimeLaw | None = None,
  role: str = 'student',
) -> Loss:
  """Denoising score matching of a log-density's gradient, and its Fokker-Planck residual.

  |sigma grad u + eps|^2 / d + weight (R^2 [+ exp 2u on the border of the box])

  With a box the points of R are uniform in [-box, box]^d and t uniform, and u is held down on the border, as published;
  without one they are the noised data themselves, the only affordable ones in many dimensions. A residual of zero is no
  proof of the right law, and large weights move the score away from the data's: report both errors.

  arXiv:2311.15996

  Args:
    process: the forward process.
    net: the log-density.
    weight: of the residual.
    box: half the side of the box; 0 for none.
    probe: of the Laplacian, 'rademacher' or 'exact'.
    times: the law of t; None is uniform on [t_min, t_max].
    role: whose parameters the network has.

  Raises:
    InputError: a network that is no `Potential`, a negative number, another probe.
  """
  if not isinstance(net, Potential):
    raise InputError(f'net: got {type(net).__name__}; allowed: losses.fokker_planck.Potential(net), a log-density')
  if weight < 0 or box < 0:
    raise InputError(f'weight, box: got {weight}, {box}; allowed: numbers of at least 0')
  if probe not in ('rademacher', 'exact'):
    raise InputError(f'probe: got {probe!r}; allowed: rademacher, exact')
  times, kind = times or uniform(), as_kind('score')

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    begin = started(process, times, batch, key)
    x = process.perturb(begin.x0, begin.eps, begin.t)
    params, flat = roles[role], x.reshape(len(x), -1)

    def log_density(flat: Array, t: Array) -> Array:
      told = kind(process, t).network_time
      return net.log_density(params, flat.reshape(x.shape), told, begin.cond, begin.key)

    sigma = process.schedule(begin.t)[1].reshape(-1, *[1] * (x.ndim - 1))
    score = net(params, x, kind(process, begin.t).network_time, begin.cond, begin.key)
    error = mean_square(sigma * score, -begin.eps)
    k_point, k_time, k_side, k_probe = keys.split(keys.fold(begin.key, 1), 4)
    points, t, border = flat, begin.t, jnp.zeros(len(x), flat.dtype)
    if box:
      points = box * jax.vmap(lambda key: jax.random.uniform(key, flat.shape[1:], flat.dtype, -1, 1))(k_point)
      t = process.t_min + keys.uniform(k_time) * (process.t_max - process.t_min)
      side = jax.vmap(lambda key: jax.random.randint(key, (), 0, 2 * flat.shape[1]))(k_side)
      edge = points.at[jnp.arange(len(x)), side // 2].set(box * (2.0 * (side % 2) - 1))
      border = jnp.exp(2 * log_density(edge, t))
    probes = None if probe == 'exact' else traces.drawn('rademacher', 1, k_probe, flat)
    off = residual(process, log_density, points, t, probes) ** 2
    return error + weight * (off + border), {'t': begin.t, 'error': error, 'residual': off, 'border': border}

  return loss
