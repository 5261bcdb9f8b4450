"""Posterior methods on Gaussians, where each has a closed form: those that are biased have the bias they should have.

On a Gaussian every denoiser here is affine, so samples are affine in x_T and in each row's noise: their moments are
read off one sample a source of noise, without statistical error.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, guidance, inverse, schedules, solvers
from diffjax.guidance import cost
from diffjax.solvers import grids, noise, sample

ONE = inverse.matrix((1,), [[1.0]])
NORMAL = exact.gaussian([0.0], 1.0)
WIDEST = 80.0


def seen(c, y=1.0):
  """y = x0 + n of variance 1/c."""
  return inverse.observation(ONE, [[y]], inverse.gaussian(c**-0.5))


def law(denoise, solver, start=WIDEST, d=1, begin=0.0):
  """The exact mean (d,) and covariance (d, d) of samples from N(begin, start^2)."""
  sources = len(solver.rows.t) * solver.stochastic
  x = np.zeros((1 + d + sources * d, d), np.float32)
  x[1 : 1 + d] = start * np.eye(d)
  x += begin
  z = np.zeros((max(sources, 1), len(x), d), np.float32)
  for i in range(sources):
    z[i, 1 + d * (i + 1) : 1 + d * (i + 2)] = np.eye(d)
  out = np.asarray(sample(denoise, solver, x, jax.random.key(0), noise_source=noise.fixed(z)), np.float64)
  return out[0], (out[1:] - out[0]).T @ (out[1:] - out[0])


def edm(n):
  process = schedules.edm()
  return process, grids.karras(process, n)


@pytest.mark.parametrize('c, mean, var', [(1, 0.7248, 0.3679), (4, 1.2800, 0.01832)])
def test_dps_under_the_ode_has_its_known_bias(c, mean, var):
  """Var = v e^{-c}, Mean = c y int e^{-c(1-q^2)/2}; within 2%."""
  process, ts = edm(256)
  got = law(inverse.dps(NORMAL.denoiser(process), seen(c)), solvers.heun(process, ts))
  np.testing.assert_allclose((got[0][0], got[1][0, 0]), (mean, var), rtol=0.02)


@pytest.mark.parametrize('c', [1, 4])
def test_dps_under_the_sde_has_its_known_bias(c):
  """Mean = y (1 - e^{-c}), Var = r^2 (1 - e^{-2c}) / 2; mean within 1.5%, variance within 6%."""
  process, ts = edm(400)
  got = law(inverse.dps(NORMAL.denoiser(process), seen(c)), solvers.ancestral(process, ts))
  np.testing.assert_allclose(got[0][0], 1 - np.exp(-c), rtol=0.015)
  np.testing.assert_allclose(got[1][0, 0], (1 - np.exp(-2 * c)) / (2 * c), rtol=0.06)


@pytest.mark.parametrize('method', ['pigdm', 'proximal'])
@pytest.mark.parametrize('c', [1, 4, 10])
def test_with_the_covariance_it_is_the_posterior(method, c):
  """Mean y c / (1 + c), Var 1 / (1 + c); within 1.5%."""
  process, ts = edm(128)
  guided = getattr(inverse, method)(NORMAL.denoiser(process), seen(c))
  got = law(guided, solvers.heun(process, ts))
  np.testing.assert_allclose((got[0][0], got[1][0, 0]), (c / (1 + c), 1 / (1 + c)), rtol=0.015)


def test_the_exact_covariance_is_exact_where_the_isotropic_one_is_not():
  """Prior N(0, diag(1, .04)), A = (1, 1), r = .2, y = 1: exact within 2%, isotropic and DPS off by more than 15%."""
  process, ts = edm(128)
  prior = exact.gaussian([0.0, 0.0], [1.0, 0.04])
  observation = inverse.observation(inverse.matrix((2,), [[1.0, 1.0]]), [[1.0]], inverse.gaussian(0.2))
  want = prior.observe([[1.0, 1.0]], [1.0], [[0.04]])
  solver, base = solvers.heun(process, ts), prior.denoiser(process)
  mean, cov = law(inverse.pigdm(base, observation, covariance='exact'), solver, d=2, begin=np.asarray(want.mean()))
  np.testing.assert_allclose(mean, want.mean(), rtol=0.02)
  np.testing.assert_allclose(cov, want.covariance(), rtol=0.02)
  for guided, published in ((inverse.pigdm(base, observation), 0.750), (inverse.dps(base, observation), 1.063)):
    mean, cov = law(guided, solver, d=2)
    np.testing.assert_allclose(mean[0], published, rtol=0.02)
    assert abs(mean[0] / want.mean()[0] - 1) > 0.1 and abs(cov[0, 0] / want.covariance()[0, 0] - 1) > 0.15


def test_conjugate_gradients_are_the_dense_solve():
  """The exact covariance by two steps of conjugate gradients, and by NumPy from the Jacobian; 1e-5."""
  process = schedules.vp_linear()
  prior = exact.mixture([1, 2], [[0, 0, 1], [1, -1, 0]], [0.3, 0.1])
  rows, r = np.array([[1, 0.5, 0], [0, 1, -1]], np.float32), 0.3
  observation = inverse.observation(inverse.matrix((3,), rows), [[0.4, -0.2]], inverse.gaussian(r))
  x, t, base = jnp.asarray([[0.3, -0.4, 0.5]]), 0.4, prior.denoiser(process)
  pred = jax.jit(lambda x: (inverse.pigdm(base, observation, covariance='exact')(x, t).x0, base(x, t).x0,
                            jax.jacobian(lambda x: base(x[None], t).x0[0])(x[0])))(x)  # fmt: skip
  got, x0, jacobian = (np.asarray(part, float) for part in pred)
  alpha, sigma = (float(v) for v in process.schedule(jnp.asarray(t)))
  inside = r**2 * np.eye(2) + sigma**2 / alpha * rows @ jacobian @ rows.T
  slope = jacobian.T @ rows.T @ np.linalg.solve(inside, np.array([0.4, -0.2]) - rows @ x0[0])
  np.testing.assert_allclose(got[0], x0[0] + sigma**2 / alpha * slope, rtol=1e-5, atol=1e-5)


def test_the_published_step_of_dps():
  """The normalised form under `dps_scale` is x_s - zeta grad |y - A D(x_t)| after DDPM's step, written by hand."""
  process = schedules.vp_linear()
  ts, zeta = np.linspace(0.9, 0.05, 6), 0.4
  base = exact.mixture([1, 2], [[0, 1], [1, -1]], [0.3, 0.1]).denoiser(process)
  rows = np.float32([[1, 0.5]])
  observation = inverse.observation(inverse.matrix((2,), rows), [[0.4]])
  table, x = solvers.ddpm(process, ts), np.float32([[0.3, -0.4], [1, 0.2]])
  z = np.random.default_rng(0).standard_normal((5, 2, 2)).astype(np.float32)
  guided = inverse.dps(base, observation, inverse.dps_scale(process, ts, zeta), normalised=True)
  got = sample(guided, table, x, jax.random.key(0), noise_source=noise.fixed(z))

  @jax.jit
  def step(x, t, s, z):
    miss, slope = jax.value_and_grad(lambda x: jnp.sum(jnp.linalg.norm(0.4 - base(x, t).x0 @ rows.T, axis=1)))(x)
    mean, std = process.posterior(x, base(x, t).x0, t, s)
    return mean + std * z - zeta * slope

  for i, (t, s) in enumerate(zip(ts, ts[1:], strict=False)):
    x = step(x, t, s, z[i])
  np.testing.assert_allclose(got, x, atol=2e-4)


def decoupled(levels, c, inner, data_std):
  """The mean and variance of DAPS on N(0, 1), y = 1: its levels one after another, by hand in float64."""
  mean, var = 0.0, WIDEST**2
  for i, s in enumerate(levels[:-1]):
    us, end = s * 100.0 ** (-np.arange(inner) / inner), 1.0
    for u, after in zip(us, us[1:], strict=False):
      end *= after / u + (1 - after / u) / (1 + u**2)
    end /= 1 + us[-1] ** 2
    spread = 1 / (1 / data_std**2 + 1 / s**2)
    pull = spread / (1 / c + spread)
    mean, var = (1 - pull) * end * mean + pull, ((1 - pull) * end) ** 2 * var + spread * (1 - pull) + levels[i + 1] ** 2
  return mean, var


@pytest.mark.parametrize('inner, data_std', [(1, 1.0), (5, np.inf)])
def test_decoupled_annealing_is_its_recursion(inner, data_std):
  """Of mean and variance by hand, within 4 standard errors; data_std inf is the published variance."""
  process, levels = schedules.edm(), np.append(np.geomspace(WIDEST, 0.1, 8), 0.0)
  x = WIDEST * np.random.default_rng(0).standard_normal((2000, 1)).astype(np.float32)
  solver = inverse.daps(process, levels, seen(2), inner=inner, data_std=data_std)
  out = np.asarray(sample(NORMAL.denoiser(process), solver, x, jax.random.key(1)))
  mean, var = decoupled(levels, 2, inner, data_std)
  assert abs(out.mean() - mean) < 4 * np.sqrt(var / 2000) and abs(out.var() / var - 1) < 4 * np.sqrt(2 / 2000)


def test_decoupled_annealing_has_its_three_laws():
  """At the end of the ODE the posterior of twice the variance; from D exact, at any levels or as they grow; 1%."""
  few, many = (np.append(np.geomspace(WIDEST, 0.01, n), 0.0) for n in (6, 2000))
  for c in (1, 4, 10):
    np.testing.assert_allclose(decoupled(few, c, 1, 1.0), (c / (1 + c), 1 / (1 + c)), rtol=0.01)
    np.testing.assert_allclose(decoupled(many, c, 1, np.inf), (c / (1 + c), 1 / (1 + c)), rtol=0.01)
    twice = 2 * c / (1 + 2 * c), 2 / (1 + 2 * c)
    np.testing.assert_allclose(decoupled(many, c, 200, np.inf), twice, rtol=0.01)


def test_flows_that_keep_the_noise_are_no_samplers():
  """FlowDPS's steps without data: .72, .67 of the variance at 50, 500; with the exact pull and eps kept the ODE's falls
  to 0, with eps recomputed it is the posterior's."""
  flow = schedules.flow()
  base = NORMAL.denoiser(flow)
  for n, share in ((10, 0.63), (50, 0.72), (500, 0.67)):
    var = law(base, inverse.flowdps_steps(flow, np.linspace(1, 0, n + 1)), 1.0)[1][0, 0]
    np.testing.assert_allclose(var, share, rtol=0.01)
  ts, observation = np.linspace(1, 0, 401), seen(4)
  table = solvers.pair_form(solvers.euler(flow, ts), flow)
  kept = law(inverse.proximal(base, observation, keep=True), table, 1.0)
  again = law(inverse.proximal(base, observation), table, 1.0)
  assert kept[1][0, 0] < 0.02
  np.testing.assert_allclose((again[0][0], again[1][0, 0]), (0.8, 0.2), rtol=0.03)


def test_flowchef_by_hand():
  """x0 down the gradient of the residual's norm, eps as it was; FlowDPS takes the share sigma of three steps."""
  flow, rows = schedules.flow(), np.float32([[1.0, 2.0]])
  observation = inverse.observation(inverse.matrix((2,), rows), [[3.0]])
  base, x, t = exact.gaussian([0.0, 0.0], 1.0).denoiser(flow), np.float32([[0.5, -1.0]]), 0.4
  plain = base(x, t)
  way = rows[0] * np.sign(3 - plain.x0 @ rows[0])
  got = inverse.flowchef(base, observation, 0.1)(x, t)
  np.testing.assert_allclose(got.x0[0], plain.x0[0] + 0.1 * way, rtol=1e-5)
  np.testing.assert_array_equal(got.eps, plain.eps)
  got = inverse.flowdps(base, observation, 0.1)(x, t)
  np.testing.assert_allclose(got.x0[0], plain.x0[0] + 0.4 * 0.3 * way, rtol=1e-5)


def test_what_each_costs():
  process = schedules.edm()
  base, observation = NORMAL.denoiser(process), seen(1)
  price = lambda transform, **options: cost(transform(base, observation, **options), 1.0)  # noqa: E731
  assert price(inverse.dps) == price(inverse.pigdm) == 2 and price(inverse.pigdm, covariance='exact') == 3
  assert price(inverse.proximal) == price(inverse.flowchef) == price(inverse.afdps) == 1
  assert guidance.cost(inverse.dps(guidance.cfg(base, 2.0, null=0), observation), 1.0) == 4
