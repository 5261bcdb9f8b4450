"""Forward processes by name. `__all__` lists what a config may name; every number is a leaf of the process."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, custom_jvp
from jax.lax import stop_gradient
from jax.nn import log_sigmoid
from jax.tree_util import Partial

from diffjax.errors import InputError
from diffjax.process import Process

__all__ = ['vp_linear', 'cosine', 'sub_vp', 've', 'edm', 'flow', 'sigmoid', 'mean_reverting', 'shifted']

Number = float | Array


def _process(
  schedule: Callable, numbers: tuple, t_min: Number, t_max: Number, inverse: Callable | None = None, **flags: bool
) -> Process:
  """Numbers become arrays of one dtype, so that 7, 7. and np.float32(7) trace to one program."""
  numbers = tuple(jnp.asarray(v, float) for v in numbers)
  closed = None if inverse is None else Partial(inverse, *numbers)
  return Process(Partial(schedule, *numbers), jnp.asarray(t_min, float), jnp.asarray(t_max, float), closed, **flags)


def _positive(**fields: Number) -> None:
  for name, value in fields.items():
    if not jnp.all(jnp.asarray(value) > 0):
      raise InputError(f'{name}: got {value}; allowed: a positive number')


def _rising(low: str, high: str, a: Number, b: Number) -> None:
  if not a < b:
    raise InputError(f'{low}, {high}: got {a}, {b}; allowed: {low} < {high}')


def vp_linear(beta_min: Number = 0.1, beta_max: Number = 20.0, t_min: Number = 1e-3) -> Process:
  """The variance-preserving process of DDPM and score-SDE, whose rate beta grows linearly.

  Variance preserving, beta(t) = beta_min + t (beta_max - beta_min) on [0, 1].   arXiv:2011.13456 app. C

  log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2, sigma^2 = 1 - alpha^2.
  """
  _positive(beta_min=beta_min)
  _rising('beta_min', 'beta_max', beta_min, beta_max)
  return _process(_vp_linear, (beta_min, beta_max), t_min, 1.0, _vp_linear_inverse)


def _log_alpha(b0: Array, b1: Array, t: Array) -> Array:
  return -(t**2) * (b1 - b0) / 4 - t * b0 / 2


def _vp_linear(b0: Array, b1: Array, t: Array) -> tuple[Array, Array]:
  log_alpha = _log_alpha(b0, b1, t)
  return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def _vp_linear_inverse(b0: Array, b1: Array, lam: Array) -> Array:
  q = 2 * (b1 - b0) * jnp.logaddexp(-2 * lam, 0.0)
  return q / ((jnp.sqrt(b0**2 + q) + b0) * (b1 - b0))  # the root of the quadratic without cancellation


def cosine(offset: Number = 0.008, t_max: Number = 0.9946, t_min: Number = 1e-3) -> Process:
  """The cosine schedule of improved DDPM, variance preserving.

  Variance preserving, alpha = cos(pi/2 u) / cos(pi/2 u0), u = (t + s)/(1 + s), u0 = s/(1 + s).   arXiv:2102.09672

  t_max = .9946 keeps lam(t_max) near -4.8: beyond it the published schedule clips too.
  """
  _positive(offset=offset, t_max=t_max)
  if not t_max <= 1:
    raise InputError(f't_max: got {t_max}; allowed: at most 1, where alpha reaches 0')
  return _process(_cosine, (offset,), t_min, t_max, _cosine_inverse)


def _cosine(s: Array, t: Array) -> tuple[Array, Array]:
  # sin of the complement keeps the relative precision of a small alpha; sigma^2 = 1 - alpha^2 is the product
  # sin(u - u0) sin(u + u0) / cos(u0)^2, free of cancellation for a small sigma.
  half = jnp.pi / 2
  u0, u = half * s / (1 + s), half * (t + s) / (1 + s)
  alpha = jnp.sin(half * (1 - t) / (1 + s)) / jnp.cos(u0)
  return alpha, jnp.sqrt(jnp.sin(half * t / (1 + s)) * jnp.sin(u + u0)) / jnp.cos(u0)


def _cosine_inverse(s: Array, lam: Array) -> Array:
  # sigma^2 = 1 / (1 + e^{2 lam}) = (sin^2 u - sin^2 u0) / cos^2 u0
  half = jnp.pi / 2
  u0 = half * s / (1 + s)
  log_cos = jnp.log(jnp.cos(u0))
  cos_u = jnp.exp(log_sigmoid(2 * lam) / 2 + log_cos)
  sin_u = jnp.sqrt(jnp.exp(log_sigmoid(-2 * lam) + 2 * log_cos) + jnp.sin(u0) ** 2)
  return jnp.maximum(jnp.arctan2(sin_u, cos_u) / half * (1 + s) - s, 0)


def sub_vp(beta_min: Number = 0.1, beta_max: Number = 20.0, t_min: Number = 1e-3) -> Process:
  """The sub-variance-preserving process, whose variance stays below that of `vp_linear`.

  Sub-variance preserving: alpha of `vp_linear`, sigma = 1 - alpha^2.   arXiv:2011.13456 eq. 14
  """
  _positive(beta_min=beta_min)
  _rising('beta_min', 'beta_max', beta_min, beta_max)
  return _process(_sub_vp, (beta_min, beta_max), t_min, 1.0, _sub_vp_inverse)


def _sub_vp(b0: Array, b1: Array, t: Array) -> tuple[Array, Array]:
  log_alpha = _log_alpha(b0, b1, t)
  return jnp.exp(log_alpha), -jnp.expm1(2 * log_alpha)


def _sub_vp_inverse(b0: Array, b1: Array, lam: Array) -> Array:
  q = 4 * (b1 - b0) * jnp.arcsinh(jnp.exp(-lam) / 2)  # sigma/alpha = 2 sinh(-log alpha)
  return q / ((jnp.sqrt(b0**2 + q) + b0) * (b1 - b0))


def ve(sigma_min: Number = 0.01, sigma_max: Number = 50.0, t_min: Number = 1e-5) -> Process:
  """The variance-exploding process: noise is added and the data stay.

  Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t on [0, 1].   arXiv:2011.13456 app. C
  """
  _positive(sigma_min=sigma_min)
  _rising('sigma_min', 'sigma_max', sigma_min, sigma_max)
  return _process(_ve, (sigma_min, sigma_max), t_min, 1.0, _ve_inverse, by_noise=True)


def _ve(low: Array, high: Array, t: Array) -> tuple[Array, Array]:
  return jnp.ones_like(t), low * (high / low) ** t


def _ve_inverse(low: Array, high: Array, lam: Array) -> Array:
  return -(lam + jnp.log(low)) / jnp.log(high / low)


def edm(sigma_min: Number = 0.002, sigma_max: Number = 80.0) -> Process:
  """EDM's process, whose time is the noise level.

  alpha = 1, sigma = t on [0, sigma_max].   arXiv:2206.00364
  """
  _positive(sigma_min=sigma_min)
  _rising('sigma_min', 'sigma_max', sigma_min, sigma_max)
  return _process(_edm, (), sigma_min, sigma_max, _edm_inverse, by_noise=True)


def _edm(t: Array) -> tuple[Array, Array]:
  return jnp.ones_like(t), t


def _edm_inverse(lam: Array) -> Array:
  return jnp.exp(-lam)


def flow(t_min: Number = 1e-3) -> Process:
  """Rectified flow: a straight line from data to noise.

  Rectified flow: alpha = 1 - t, sigma = t on [0, 1]; velocity eps - x0.   arXiv:2209.03003, arXiv:2210.02747
  """
  return _process(_flow, (), t_min, 1.0, _flow_inverse)


def _flow(t: Array) -> tuple[Array, Array]:
  return 1 - t, t


def _flow_inverse(lam: Array) -> Array:
  return jnp.exp(log_sigmoid(-lam))


def sigmoid(start: Number = -3.0, end: Number = 3.0, tau: Number = 1.0, t_max: Number = 0.9946) -> Process:
  """The sigmoid schedule, variance preserving.

  Variance preserving, alpha^2 = [S(end) - S(u)] / [S(end) - S(start)], u = start + t (end - start).

  S(u) = 1 / (1 + exp(-u / tau)).   arXiv:2301.10972, arXiv:2212.11972
  """
  _positive(tau=tau, t_max=t_max)
  _rising('start', 'end', start, end)
  return _process(_sigmoid, (start, end, tau), 1e-3, t_max, _sigmoid_inverse)


def _sigmoid(start: Array, end: Array, tau: Array, t: Array) -> tuple[Array, Array]:
  # S(b) - S(a) = sinh((b - a)/2) / (2 cosh(a/2) cosh(b/2)): no difference of nearly equal numbers at either end
  a, b = start / tau, end / tau
  u = a + t * (b - a)
  total = jnp.sinh((b - a) / 2)
  alpha2 = jnp.sinh((b - a) * (1 - t) / 2) * jnp.cosh(a / 2) / (total * jnp.cosh(u / 2))
  sigma2 = jnp.sinh((b - a) * t / 2) * jnp.cosh(b / 2) / (total * jnp.cosh(u / 2))
  return jnp.sqrt(alpha2), jnp.sqrt(sigma2)


def _sigmoid_inverse(start: Array, end: Array, tau: Array, lam: Array) -> Array:
  # sinh(d (1 - t)) = k sinh(d t), solved for t without a difference of nearly equal numbers
  a, b = start / tau, end / tau
  d = (b - a) / 2
  k = jnp.exp(2 * lam) * jnp.cosh(b / 2) / jnp.cosh(a / 2)
  return jnp.log1p(2 * jnp.sinh(d) / (k + jnp.exp(-d))) / (2 * d)


def mean_reverting(
  spread: Number = 50 / 255, end: Number = 0.005, offset: Number = 0.008, t_min: Number = 1e-2
) -> Process:
  """The mean-reverting process of IR-SDE, which drifts to a degraded image.

  dx = theta (mu - x) dt + g dw, g^2 = 2 spread^2 theta, as a process of y = x - (1 - alpha) mu.   arXiv:2301.11699

  alpha = exp(-Theta(t)), sigma = spread sqrt(1 - alpha^2), Theta = int theta, theta(t) proportional to 1 - cos^2(pi/2
  u) / cos^2(pi/2 u0) with u = (t + offset) / (1 + offset), and alpha(1) = `end`. The process drifts to mu, a degraded
  image say, which y does not see: `diffjax.guidance.mean_reverting` makes a network of x one of y, and every solver of
  this library then is one of x (MR-Sampler, arXiv:2502.07856).

  t is in [0, 1], 0 the data: step i of the published 100 is t = i / 100, up to the error O(1/100) of their sum for the
  integral, and t_min is the first of them.

  Raises:
    InputError: a number is not positive, or `end` is not below 1.
  """
  _positive(spread=spread, end=end, offset=offset)
  _rising('end', '1', end, 1.0)
  return _process(_mean_reverting, (spread, end, offset), t_min, 1.0)


def _mean_reverting(spread: Array, end: Array, offset: Array, t: Array) -> tuple[Array, Array]:
  log_alpha = jnp.log(end) * _theta_sum(offset, t) / _theta_sum(offset, jnp.ones_like(t))
  return jnp.exp(log_alpha), spread * jnp.sqrt(-jnp.expm1(2 * log_alpha))


def _theta_sum(s: Array, t: Array) -> Array:
  # theta is sin(a t) sin(a (t + 2 s)) up to a factor, a = pi/2 / (1 + s): its integral as a sum of positive terms
  a = jnp.pi / 2 / (1 + s)
  y = 2 * a * t
  small = y < 0.5
  low = jnp.where(small, y, 0.0)
  series = low**3 / 6 * (1 - low**2 / 20 * (1 - low**2 / 42 * (1 - low**2 / 72 * (1 - low**2 / 110))))
  curve = jnp.where(small, series, y - jnp.sin(y))  # y - sin y
  return jnp.cos(2 * a * s) * curve / 2 + jnp.sin(2 * a * s) * jnp.sin(a * t) ** 2


def shifted(process: Process, shift: Number) -> Process:
  """The same curve of (alpha, sigma) run through with sigma/alpha multiplied by `shift` at every time.

  tau(t) = lam_inverse(lam(t) - log shift); for rectified flow this is tau = shift t / (1 + (shift - 1) t). A
  resolution r times higher wants shift = r.   arXiv:2301.11093 sec. 3.1, arXiv:2403.03206 sec. 5.3.2

  Raises:
    InputError: shift is not positive.
  """
  _positive(shift=shift)
  shift = jnp.asarray(shift, float)
  # a curve known by bisection alone ends at t_max, so the shifted time that reaches this end comes earlier
  t_max = process.t_max if process.inverse else process.lam_inverse(process.lam(process.t_max) + jnp.log(shift))
  inverse = Partial(_shifted_inverse, process, shift)
  return process.replace(schedule=Partial(_shifted, process, shift), t_max=t_max, inverse=inverse)


def _shifted(process: Process, shift: Array, t: Array) -> tuple[Array, Array]:
  lam = process.lam(stop_gradient(t)) - jnp.log(shift)
  return process.schedule(_moving(process, shift, t, _reach(process, lam)))


@custom_jvp
def _moving(process: Process, shift: Array, t: Array, tau: Array) -> Array:
  """tau, with dtau/dt = lam'(t) / lam'(tau), which automatic differentiation loses at infinite lam (inf / inf)."""
  return tau


@_moving.defjvp
def _moving_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  process, shift, t, tau = primals
  tau = _moving(process, shift, t, tau)
  (alpha_t, sigma_t), (alpha, sigma) = process.schedule(t), process.schedule(tau)
  (da_t, ds_t), (da, ds) = process.rates(t), process.rates(tau)
  # -lam' = (alpha sigma' - alpha' sigma) / (alpha sigma); sigma/alpha = shift sigma_t/alpha_t cancels what may be 0
  noisy = sigma_t > alpha_t
  ratio = jnp.where(noisy, sigma, alpha) / jnp.where(noisy, sigma_t, alpha_t)
  gain = ratio**2 * jnp.where(noisy, 1 / shift, shift)
  rate = (alpha_t * ds_t - da_t * sigma_t) / (alpha * ds - da * sigma) * gain
  return tau, tangents[3] + rate * tangents[2]


def _shifted_inverse(process: Process, shift: Array, lam: Array) -> Array:
  return _reach(process, lam + jnp.log(shift))


def _reach(process: Process, lam: Array) -> Array:
  """lam_inverse, not clipped where there is a closed form: the shifted curve may go on beyond t_max."""
  return process.inverse(lam) if process.inverse else process.lam_inverse(lam)
