"""Rows of the theory table on paths of laws: interpolants as bridges, what controls likelihood, ODE against SDE."""

from typing import Any

import numpy as np
from scipy.integrate import cumulative_trapezoid, solve_ivp
from scipy.optimize import least_squares, minimize_scalar
from scipy.sparse import diags, eye
from scipy.sparse.linalg import splu

from experiments.tables.theory_rates import VP, Row, kl, near

__all__ = ['bridge', 'control', 'gap', 'paths', 'regularised', 'rough_drift']

INTERPOLANTS, GAP = 'stochastic interpolants', 'ODE-SDE gap'
T = np.linspace(0, 1, 20001)


def spread(t, s0, s1, a):
  """The variance of a linear interpolant of two Gaussians with gamma^2 = a t (1 - t), and its slope."""
  variance = (1 - t) ** 2 * s0**2 + t**2 * s1**2 + a * t * (1 - t)
  return variance, -2 * (1 - t) * s0**2 + 2 * t * s1**2 + a * (1 - 2 * t)


def bridge():
  """The a that costs least energy E |u|^2 is 2 sqrt(s0^2 s1^2 + e^2): then the interpolant is the bridge."""
  rows = []
  for s0, s1, e in ((1, 0.5, 0.5), (1, 0.5, 0.0), (1, 1, 0.5), (1, 2, 1)):

    def energy(a, s0=s0, s1=s1, e=e):
      variance, slope = spread(T, s0, s1, a)
      return np.trapezoid((slope / 2 - e) ** 2 / variance, T)

    said = 2 * np.sqrt(s0**2 * s1**2 + e**2)
    found: Any = minimize_scalar(energy, bounds=(0.05, 8), method='bounded', options=dict(xatol=1e-6))
    got = found.x
    rows.append(Row(INTERPOLANTS, f'best a, s0 = {s0}, s1 = {s1}, e = {e}', said, got, abs(got - said) < 0.005, '.005'))
  return rows


def control(s0=1.0, s1=0.5, a=2.0, delta=0.1):
  """A drift wrong by .1 x: KL of the ODE in closed form, of SDEs below (1 / 4e) int E |delta b|^2."""
  ratio = solve_ivp(lambda t, v: 2 * (spread(t, s0, s1, a)[1] / 2 / spread(t, s0, s1, a)[0] + delta) * v, (0, 1),
                    [s0**2], rtol=1e-10, atol=1e-12).y[0, -1]  # fmt: skip
  said = (np.exp(-2 * delta) - 1 + 2 * delta) / 2
  rows = [near(INTERPOLANTS, 'KL of the ODE, drift wrong by .1 x', said, kl(s1**2, ratio), 1e-3)]
  for e, printed in ((0.1, 0.00673), (0.5, 0.00194), (2.0, 0.00009)):

    def slope(t, v, e=e):
      variance, rise = spread(t, s0, s1, a)
      return 2 * ((rise / 2 - e) / variance + delta) * v + 2 * e

    got = kl(s1**2, solve_ivp(slope, (0, 1), [s0**2], rtol=1e-10, atol=1e-12).y[0, -1])
    bound = delta**2 * np.trapezoid(spread(T, s0, s1, a)[0], T) / (4 * e)
    met = got <= bound and abs(got - printed) < 0.03 * printed + 5e-6
    rows.append(Row(INTERPOLANTS, f'KL of the SDE, e = {e:g}', printed, got, met, f'<= {bound:.5f}'))
  return rows


def rough_drift(size=0.1):
  """A drift wrong by .1 sin kx, of one error in L2 for all k >= 3: the ODE's KL grows with k, the SDE's does not."""
  x = np.linspace(-6, 6, 2_000_001)
  log_p = -(x**2) / 2 - np.log(2 * np.pi) / 2
  rows, before = [], 0.0
  for k, said in ((1, 0.0049), (10, 0.242), (100, 8.61), (300, 28.6)):
    phase = (k * x / 2 + np.pi / 2) % np.pi - np.pi / 2
    start = x + 2 / k * (np.arctan(np.exp(-size * k) * np.tan(phase)) - phase)
    log_slope = -np.log(np.exp(size * k) * np.cos(phase) ** 2 + np.exp(-size * k) * np.sin(phase) ** 2)
    got = np.trapezoid(np.exp(log_p) * (log_p + start**2 / 2 + np.log(2 * np.pi) / 2 - log_slope), x)
    rows.append(Row(INTERPOLANTS, f'KL of the ODE, drift wrong by .1 sin {k} x', said, got,
                    got > before and abs(got / said - 1) < 0.03, 'rises with k, 3%'))  # fmt: skip
    before = got
  for k, said in ((1, 0.0017), (10, 1.0e-4)):
    got, bound = diffused(k, size), size**2 / (4 * 0.5) * 0.5 * (1 - np.exp(-2.0 * k**2))
    met = got < bound and abs(got / said - 1) < 0.1
    rows.append(Row(INTERPOLANTS, f'KL of the SDE, e = .5, .1 sin {k} x', said, got, met, f'<= {bound:.4f}'))
  return rows


def diffused(k, size, e=0.5, n=3000, steps=400):
  """KL(N(0, 1) || law after time 1 of dx = (-e x + size sin k x) dt + sqrt(2 e) dw from N(0, 1)), by finite volumes."""
  edges = np.linspace(-6, 6, n + 1)
  x, h = (edges[1:] + edges[:-1]) / 2, 12 / n
  inner = edges[1:-1]
  drift = -e * inner + size * np.sin(k * inner)
  right, left = drift / 2 + e / h, drift / 2 - e / h  # flux = left * p_right + right * p_left
  at: Any = ([0, 1], [0, -1])
  flow = diags([right, left], at[0], shape=(n - 1, n))
  change = -diags([np.ones(n - 1), -np.ones(n - 1)], at[1], shape=(n, n - 1)) @ flow / h
  dt = 1 / steps
  solve = splu((eye(n) - dt / 2 * change).tocsc())
  p = q = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
  p = p / (p.sum() * h)
  q = p
  for _ in range(steps):
    q = solve.solve(q + dt / 2 * (change @ q))
  return float(np.sum(p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300))) * h)


def solved(times, v_h, v_slope):
  """Final deviations of ODE and SDE whose score is -x / v_h, the bound on their distance, and that of the residual.

  times rise from 0 to 1; both laws begin at t = 1 with variance v_h.
  """
  process = VP()
  g2 = process.g2(times)
  f = -g2 / 2
  rho = (v_slope - 2 * f * v_h - g2) / v_h
  tau, back = 1 - times[::-1], slice(None, None, -1)
  f, g2, v, rho = f[back], g2[back], v_h[back], rho[back]
  at = lambda values: lambda s: np.interp(s, tau, values)  # noqa: E731
  f_, g_, v_, r_ = at(f), at(g2), at(v), at(rho)

  def slope(s, state):
    log_a, variance, eta, least = state
    pull = f_(s)
    return (
      -pull - g_(s) / (2 * v_(s)),
      2 * (-pull - g_(s) / v_(s)) * variance + g_(s),
      (2 * pull - g_(s) * eta) * eta - r_(s) / v_(s),
      2 * pull * least + abs(r_(s)) / v_(s),
    )

  start = [np.log(v[0]) / 2, v[0], 0.0, 0.0]
  out = solve_ivp(slope, (0, 1), start, t_eval=tau, rtol=1e-9, atol=1e-12).y
  growth = cumulative_trapezoid(-f - g2 / (2 * v), tau, initial=0)
  weigh = np.exp(growth[-1] - growth) * g2 / 2 * np.sqrt(out[1])
  signed = np.trapezoid(weigh * out[2], tau)
  bounds = [np.trapezoid(weigh * np.abs(of), tau) for of in (out[2], out[3])]
  return float(np.exp(out[0, -1])), float(np.sqrt(out[1, -1])), bounds, signed


def gap(c2=0.25):
  """W2 of ODE and SDE against its bound: equal for a score wrong by one factor, consistent scores have none."""
  process, rows, t = VP(), [], np.linspace(0, 1, 40001)
  a2, s2 = process.levels(t)
  v, dv = a2 * c2 + s2, process.g2(t) * (1 - (a2 * c2 + s2))
  for delta, said in ((0.05, 0.1471), (0.1, 0.3292)):
    ode, sde, bounds, _ = solved(t, v * (1 + delta), dv * (1 + delta))
    met = abs(abs(ode - sde) - bounds[0]) < 1e-4 and abs(bounds[0] / said - 1) < 0.02
    rows.append(
      Row(GAP, f'gap, variance wrong by {delta:g}; the bound', bounds[0], abs(ode - sde), met, 'equal to 1e-4')
    )
  for delta, said in ((0.05, 0.0471), (0.1, 0.0995)):
    wave, slope = 1 + delta * np.sin(2 * np.pi * t), 2 * np.pi * delta * np.cos(2 * np.pi * t)
    ode, sde, bounds, _ = solved(t, v * wave, dv * wave + v * slope)
    met = abs(ode - sde) <= bounds[0] <= bounds[1] and abs(abs(ode - sde) / said - 1) < 0.02
    shown = f'<= {bounds[0]:.4f} <= {bounds[1]:.4f}'
    rows.append(Row(GAP, f'gap, variance wrong by {delta:g} sin 2 pi t', said, abs(ode - sde), met, shown))
  ode, sde, _, _ = solved(t, a2 * 0.36 + s2, process.g2(t) * (1 - (a2 * 0.36 + s2)))
  met = abs(ode - sde) < 1e-5 and abs(ode - 0.6) < 1e-4
  return [*rows, Row(GAP, 'deviation under a consistent, wrong score (truth .5)', 0.6, ode, met, 'no gap')]


def regularised(c2=0.25, n=200):
  """The residual's weight closes the gap: the ODE improves, the SDE worsens."""
  process, t = VP(), np.linspace(0, 1, n + 1)
  a2, s2 = process.levels(t)
  wrong = np.log((a2 * c2 + s2) * (1 + 0.1 / (1 + np.exp(-(t - 0.3) / 0.05))))
  middle, h, found = (t[1:] + t[:-1]) / 2, 1 / n, []
  g2 = process.g2(middle)
  for w in (0.0, 0.01, 0.1, 1.0):

    def parts(y, w=w):
      rho = np.diff(y) / h + g2 - g2 * np.exp(-(y[1:] + y[:-1]) / 2)
      return np.concatenate([np.sqrt(h * np.maximum(s2, 1e-6)) * (y - wrong), np.sqrt(w * h) * rho])

    y = wrong if w == 0 else least_squares(parts, wrong).x
    fine = np.linspace(0, 1, 20001)
    y = np.interp(fine, t, y)
    v_h = np.exp(y)
    found.append(solved(fine, v_h, np.gradient(v_h, fine))[:2])
  ode, sde = (np.array(part) for part in zip(*found, strict=True))
  met = bool((np.diff(ode) < 0).all() and (np.diff(sde) > 0).all())
  rows = []
  before = ((0.770, 0.510), (0.601, 0.523), (0.541, 0.530), (0.5325, 0.5313))  # measured before, elsewhere
  for w, said, a, b in zip((0, 0.01, 0.1, 1), before, ode, sde, strict=True):
    rows += [Row(GAP, f'deviation of the ODE, residual weight {w:g} (truth .5)', said[0], a, met, 'falls with it'),
             Row(GAP, f'deviation of the SDE, residual weight {w:g}', said[1], b, met, 'rises with it')]  # fmt: skip
  return rows


def paths():
  """All rows of this page."""
  return [row for part in (bridge, control, rough_drift, gap, regularised) for row in part()]
