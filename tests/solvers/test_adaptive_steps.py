"""The steps an adaptive solver takes on a linear problem, as NumPy takes them; and the error asked for is that had."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy.integrate import RK45
from scipy.stats import norm

from diffjax import noise_levels, schedules
from diffjax.exact import gaussian, gaussian_flow, mixture
from diffjax.solvers.own.adaptive import dopri5, dpm_adaptive

VAR = np.array([0.04, 1.5])
SEEN, KEY = [], jax.random.key(1)


@struct.dataclass
class Seen:
  """Notes on the host the times of evaluation, in order."""

  denoise: Any

  @property
  def process(self):
    return self.denoise.process

  def __call__(self, x, t, cond=None, memory=None):
    jax.debug.callback(lambda t: SEEN.append(float(t[0])), t, ordered=True)
    return self.denoise(x, t, cond, memory)


def level(process, t):
  return (part[0] for part in noise_levels.at(process, [t])[:2])


def rest(h):
  return np.expm1(h) / h - 1


class Numpy:
  """One sample: its times of evaluation, and where it ends."""

  def __init__(self, process, rtol, atol, std):
    self.process, self.rtol, self.atol, self.std, self.times = process, rtol, atol, std, []

  def pair(self, x, t):
    self.times.append(t)
    alpha, sigma = level(self.process, t)
    total = alpha**2 * VAR + sigma**2
    return alpha * VAR / total * x, sigma / total * x

  def slope(self, x, t):
    """By central differences of the levels, which are smooth."""
    d = 1e-6
    (a1, s1), (a2, s2) = level(self.process, t + d), level(self.process, t - d)
    x0, eps = self.pair(x, t)
    return (a1 - a2) / (2 * d) * x0 + (s1 - s2) / (2 * d) * eps

  def turned(self, rho):
    """lam after a turn of .4 of arctan(rho / std), rho = sigma / alpha; near the data after 1.5 more at most."""
    angle = np.arctan(rho / self.std) - 0.4
    near = rho / self.std < 1
    turn = -np.log(self.std * np.tan(angle)) if angle > 0 else np.inf
    return min(turn, -np.log(rho) + 1.5) if near else turn

  def unit(self, t):
    alpha, sigma = level(self.process, t)
    return np.sqrt(alpha**2 + sigma**2 / self.std**2)

  def steps(self, attempt, x, kept, start, end, h, order):
    s = start
    while s != end:
      step = np.sign(h) * min(abs(h), abs(self.farthest(s) - s))
      last = abs(step) >= abs(end - s)
      step = end - s if last else step
      new, error, new_kept = attempt(x, s, step, kept)
      error = np.sqrt(np.mean(error**2))
      if error <= 1:
        x, kept, s = new, new_kept, end if last else s + step
      h = step * min(max(0.9 * error ** (-1 / order), 0.2), 2.0)
    return x

  def dopri5(self, x, end):
    start = float(self.process.t_max)

    def farthest(t):
      alpha, sigma = level(self.process, t)
      return noise_levels.times_of(self.process, [self.turned(sigma / alpha if alpha else np.inf)])[0]

    self.farthest = farthest

    def attempt(x, t, h, first):
      k = [first]
      for c, row in zip(RK45.C[1:], RK45.A[1:], strict=True):
        k.append(self.slope(x + h * np.dot(row[: len(k)], k), t + c * h))
      new = x + h * np.dot(RK45.B, k)
      k.append(self.slope(new, t + h))
      size = np.maximum(np.abs(x) / self.unit(t), np.abs(new) / self.unit(t + h))
      unit, third = self.unit(t + h), np.array([7 / 72, 0, 4 / 9, 11 / 24, 0, 0])  # exact for 1, t and t^2
      fine, coarse = np.abs(h * np.dot(RK45.E, k)) / unit, np.abs(h * np.dot(RK45.B - third, k[:6])) / unit
      error = np.maximum(fine, 0.3 * self.std * (coarse / self.std) ** 1.25)
      return new, error / (self.atol + self.rtol * size), k[-1]

    return self.steps(attempt, x, self.slope(x, start), start, end, 0.01 * (end - start), 5)

  def dpm(self, x, end, order):
    """DPM-Solver-12 and -23 as in the paper, r1 = 1/3 and r2 = 2/3, or 1/2."""
    start, end = noise_levels.at(self.process, [float(self.process.t_max), end])[2]
    time = lambda lam: noise_levels.times_of(self.process, [lam])[0]  # noqa: E731

    self.farthest = lambda lam: self.turned(np.exp(-lam))

    def attempt(x, lam, h, before):
      t = time(lam)
      alpha = next(level(self.process, t))
      eps = self.pair(x, t)[1]

      def reach(r, term):
        to, sigma = level(self.process, time(lam + r * h))
        return to / alpha * x - sigma * term

      def difference(r, term):
        return self.pair(reach(r, term), time(lam + r * h))[1] - eps

      full = np.expm1(h) * eps
      if order == 2:
        d = difference(1 / 2, np.expm1(h / 2) * eps)
        low, high = reach(1, full), reach(1, full + np.expm1(h) * d)
        error = np.abs(high - low)
      else:
        d1 = difference(1 / 3, np.expm1(h / 3) * eps)
        d2 = difference(2 / 3, np.expm1(2 * h / 3) * eps + 2 * rest(2 * h / 3) * d1)
        low, high = reach(1, full + 1.5 * np.expm1(h) * d1), reach(1, full + 1.5 * rest(h) * d2)
        error = np.maximum(np.abs(high - low), np.abs(high - reach(1, full + 0.75 * np.expm1(h) * d2)))
      unit = self.unit(time(lam + h))
      low = low / unit
      return high, error / unit / np.maximum(self.atol, self.rtol * np.maximum(np.abs(low), np.abs(before))), low

    return self.steps(attempt, x, x / self.unit(time(start)), start, end, 0.05, order)


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
@pytest.mark.parametrize('name', ['dopri5', 'dpm_adaptive 2', 'dpm_adaptive 3'])
@pytest.mark.parametrize('std', [1.0, 0.5])
def test_the_controller_is_that_of_numpy(x64, name, kind, std):
  """Every evaluation at the same time, rejected attempts too, and the same end; one sample of two dimensions."""
  if kind == 'flow' and name != 'dopri5':
    return  # lam is infinite at the start
  process = getattr(schedules, kind)()
  denoise, end = Seen(gaussian([0.0, 0.0], VAR).denoiser(process)), 0.01
  x = float(process.schedule(process.t_max)[1]) * np.array([0.7, -1.3])
  options: dict[str, Any] = dict(rtol=3e-3, atol=1e-3, end=end, data_std=std)
  SEEN.clear()
  if name == 'dopri5':
    wanted = Numpy(process, 3e-3, 1e-3, std)
    x_wanted, got = wanted.dopri5(x, end), dopri5(denoise, jnp.asarray(x[None]), **options)
  else:
    order, wanted = int(name[-1]), Numpy(process, 3e-3, 1e-3, std)
    x_wanted = wanted.dpm(x, end, order)
    got = dpm_adaptive(denoise, jnp.asarray(x[None]), order=order, **options)
  jax.effects_barrier()
  assert len(SEEN) == len(wanted.times) == int(got.nfe[0]) and bool(got.success.all())
  np.testing.assert_allclose(SEEN, wanted.times, rtol=1e-5)
  np.testing.assert_allclose(got.x[0], x_wanted, rtol=1e-5)


def sorted_flow(target, process, x, end):
  """Where the flow takes x (B,) of a 1-D mixture, and by how much it stretches an error on the way, at most.

  In one dimension it keeps order: F_end(x_end) = F_t(x_t) with the distribution functions F, p their densities, so that
  an error e of x_t / unit(t) is one of e unit(t) p_t(x_t) / p_end(x_end) at the end.
  """
  w, m, v = (np.asarray(part, float) for part in (np.exp(target.log_weights), target.means[:, 0], target.var[:, 0]))

  def law(x, t):
    alpha, sigma = level(process, t)
    z, std = x[:, None] - alpha * m, np.sqrt(alpha**2 * v + sigma**2)
    return norm.cdf(z / std) @ w, (norm.pdf(z / std) / std) @ w, np.hypot(alpha, sigma)

  def point(share, t):
    reach = 12 * np.hypot(*level(process, t))
    low, high = np.full_like(share, -reach), np.full_like(share, reach)
    for _ in range(70):
      middle = (low + high) / 2
      below = law(middle, t)[0] < share
      low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2

  share, ends = law(x, float(process.t_max))[0], []
  final = point(share, end)
  for t in noise_levels.times_of(process, np.linspace(-4, noise_levels.at(process, [end])[2][0], 40)):
    _, density, unit = law(point(share, t), t)
    ends.append(unit * density / law(final, end)[1])
  return final, np.max(ends, 0)


ISSUED = ([0.3, 0.5, 0.2], [[-2.0], [0.5], [2.5]], [0.09, 0.25, 0.04])  # apart, so that errors are stretched 50-fold
TOLERANCES = {
  'dpm_adaptive 3': (dict(), dict(rtol=5e-3, atol=8e-4)),
  'dpm_adaptive 2': (dict(), dict(rtol=5e-3, atol=8e-4)),
  'dopri5': (dict(rtol=0.05, atol=0.0078), dict(rtol=1e-3, atol=1e-3), dict()),
}
ALLOWED = {'dpm_adaptive 3': 1.0, 'dpm_adaptive 2': 2.0, 'dopri5': 10.0}  # sample's error over tolerance times stretch


def asked(name, options):
  solver = dopri5 if name == 'dopri5' else lambda *args, **more: dpm_adaptive(*args, order=int(name[-1]), **more)
  usual = dict(rtol=1e-5, atol=1e-5) if name == 'dopri5' else dict(rtol=0.05, atol=0.0078)
  return solver, usual | options


@pytest.mark.parametrize('kind', ['vp_linear', pytest.param('edm', marks=pytest.mark.slow), 'flow'])
@pytest.mark.parametrize('target', ['modes', pytest.param('cloud', marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', TOLERANCES)
def test_the_error_asked_for_is_the_error_had(x64, name, target, kind):
  """Every sample of a mixture of modes far apart, and of a Gaussian of 8 dimensions, at loose and tight tolerances."""
  if kind == 'flow' and name != 'dopri5':
    return
  process = getattr(schedules, kind)()
  end, std = float(process.t_min), float(process.schedule(process.t_max)[1])
  if target == 'modes':
    law, x = mixture(*ISSUED), std * jax.random.normal(jax.random.key(0), (512, 1))
    final, stretch = sorted_flow(law, process, np.asarray(x[:, 0]), end)
    wanted = final[:, None]
    assert 20 < stretch.max() < 100
  else:
    law, x = gaussian(np.linspace(-0.5, 0.5, 8), np.linspace(0.1, 1, 8) ** 2), std * jax.random.normal(KEY, (128, 8))
    stretch = 1.0
    wanted = np.asarray(gaussian_flow(law, process, x, process.t_max, end))
  for options in TOLERANCES[name]:
    solver, used = asked(name, options)
    got = solver(law.denoiser(process), x, **options)
    error = np.sqrt(np.mean((got.x - wanted) ** 2, -1))
    tolerance = np.sqrt(np.mean((used['atol'] + used['rtol'] * np.abs(wanted)) ** 2, -1))
    worst = np.max(error / tolerance / stretch)
    assert bool(got.success.all()) and worst <= ALLOWED[name], (options, worst)


@pytest.mark.slow
def test_defaults_in_float32():
  """1024 starts under vp_linear, where steps of any length had left samples 9.8 away with `reached` true."""
  process, target = schedules.vp_linear(), mixture(*ISSUED)
  x = jax.random.normal(jax.random.key(0), (1024, 1))
  final, _ = sorted_flow(target, process, np.asarray(x[:, 0], float), float(process.t_min))
  got = dpm_adaptive(target.denoiser(process), x)
  error = np.abs(got.x[:, 0] - final)
  assert bool(got.success.all()) and np.sqrt(np.mean(error**2)) <= 0.05 and error.max() <= 0.5
