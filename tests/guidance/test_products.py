"""Products of densities: plain they are biased, under weighted particles they have the law of the product."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.guidance import annealed, cfg, converted, cost, product
from diffjax.prediction import as_denoiser
from diffjax.solvers import sample
from diffjax.steering import particle_keys, particles

PROCESS = schedules.edm(0.002, 80.0)


def pair(x, t, cond):
  """TB-G: class 0 is N(1, .25), and without a class N(0, 1.25)."""
  m, v = (jnp.where(cond == 0, a, b)[:, None] for a, b in ((1.0, 0.0), (0.25, 1.25)))
  return (v * x + t[:, None] ** 2 * m) / (v + t[:, None] ** 2)


PAIR = as_denoiser(pair, PROCESS, null=1)


def grid(points):
  return np.append(np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), points) ** 7, 0.0)


@partial(jax.jit, static_argnums=(2, 3))
def run(denoise, solver, runs, count, start=1.0):
  own = particle_keys(keys.per_sample(jax.random.key(0), runs), count)
  begin, own = keys.split(own, 2)
  x = start * PROCESS.prior(begin, jax.ShapeDtypeStruct((runs * count, 1), jnp.float32))
  return sample(denoise, solver, x, own, jnp.zeros(runs * count, jnp.int32))


def moments(found):
  x, w = np.asarray(found.x)[..., 0], np.asarray(found.weights)
  mean = (w * x).sum(1)
  return mean.mean(), ((w * x**2).sum(1) - mean**2).mean()


def test_the_rate_is_what_the_continuity_equation_asks():
  """The rates at one point, float32, against 3.2 of the guidance notes; of two equal experts 0."""
  x, t = jnp.linspace(-2, 2, 5)[:, None], 0.7
  c, u = PAIR(x, t, jnp.zeros(5, int)).eps, PAIR(x, t, jnp.ones(5, int)).eps
  s_c, s_u = -np.asarray(c)[:, 0] / t, -np.asarray(u)[:, 0] / t
  guided = cfg(PAIR, 2.0)(x, t, jnp.zeros(5, int))
  np.testing.assert_allclose(guided.aux['weight_rate'], t * 2 * (s_c - s_u) ** 2, rtol=1e-4)
  sharp, both = annealed(PAIR, 3.0), product((PAIR, PAIR), (1.5, -0.5))
  one = sharp(x, t, jnp.zeros(5, int))
  np.testing.assert_allclose(one.aux['weight_rate'], t * 6 * s_c**2, rtol=1e-4)
  same = both(x, t, jnp.zeros(5, int))
  np.testing.assert_allclose(same.aux['weight_rate'], 0, atol=1e-5)
  np.testing.assert_allclose(same.eps, c, atol=1e-5)
  assert cost(sharp, 1.0) == 1 and cost(both, 1.0) == cost(cfg(PAIR, 2.0), 1.0) == 2
  with pytest.raises(InputError, match='powers: got'):
    product((PAIR, PAIR), (1.0, -1.0))


def test_weights_make_guidance_exact():
  """Product N(1.1111, .1389); the SDE alone has N(1.2, .1033). 200 steps: within .03 and 12 %, and nearer."""
  solver = solvers.ancestral(PROCESS, grid(200))
  mean, var = moments(run(cfg(PAIR, 2.0), particles(solver, 1000, whole=True), 8, 1000))
  assert abs(mean - 1.1111) < 0.03 and abs(var / 0.1389 - 1) < 0.12


@pytest.mark.slow
def test_weights_make_guidance_exact_at_the_bound():
  """1000 steps: mean within .02, variance within 8 %, and nearer than without the weights."""
  solver = solvers.ancestral(PROCESS, grid(1000))
  mean, var = moments(run(cfg(PAIR, 2.0), particles(solver, 1000, whole=True), 20, 1000))
  plain = np.asarray(run(cfg(PAIR, 2.0), solver, 20000, 1))
  assert abs(mean - 1.1111) < 0.02 and abs(var / 0.1389 - 1) < 0.08
  assert abs(plain.mean() - 1.2) < 0.02 and abs(var - 0.1389) < abs(plain.var() - 0.1389)


@pytest.mark.slow
def test_annealing_has_the_weights_of_the_power():
  """p^2 of a mixture: (.783, .196, .022) and variance .045; uncorrected (.753, .236, .011) and .031."""
  target = exact.mixture([0.6, 0.3, 0.1], [[-2.0], [0.0], [2.0]], [0.09] * 3).denoiser(PROCESS)
  dark = as_denoiser(target_of(target), PROCESS)
  solver = solvers.euler_maruyama(PROCESS, grid(400))
  found = run(annealed(dark, 2.0), particles(solver, 4000, whole=True), 4, 4000, 2**-0.5)
  x, w = np.asarray(found.x)[..., 0], np.asarray(found.weights)
  near = np.argmin(np.abs(x[..., None] - np.array([-2, 0, 2])), -1)
  share = np.array([(w * (near == k)).sum(1).mean() for k in range(3)])
  np.testing.assert_allclose(share, (0.783, 0.196, 0.022), atol=0.03)
  var = (w * (near == 0) * (x + 2) ** 2).sum() / (w * (near == 0)).sum()
  assert abs(var / 0.045 - 1) < 0.1


def target_of(target):
  return lambda x, t, cond: target(x, t).x0


def test_a_converted_flow_has_the_velocity_of_the_new_process():
  """TB-GM3 learned on rectified flow, asked on the variance-preserving path: 1e-5 of the analytic velocity."""
  with jax.enable_x64(True):
    flow, vp = schedules.flow(), schedules.vp_linear()
    mixture = exact.mixture([0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)
    r, x = jnp.linspace(0.02, 0.98, 7), jax.random.normal(jax.random.key(0), (7, 2))
    got = converted(mixture.denoiser(flow), vp)(x, r)
    want = mixture.denoiser(vp)(x, r)
    np.testing.assert_allclose(vp.velocity(*got[:2], r), vp.velocity(*want[:2], r), rtol=1e-5, atol=1e-5)
    assert converted(mixture.denoiser(flow), vp).process is vp


def test_flow_sde_keeps_the_marginals():
  """Whatever the noise: mean and variance of a Gaussian after 100 steps within 2 %."""
  flow = schedules.flow()
  target = exact.gaussian([0.5], [0.5])
  x = jax.random.normal(jax.random.key(1), (20000, 1))
  for noise, size in (('square', 3.0), ('sigma', 1.0), ('square', 0.0)):
    solver = solvers.flow_sde(flow, np.linspace(1, 0, 101), noise, size)
    got = np.asarray(sample(target.denoiser(flow), solver, x, jax.random.key(0)))
    assert abs(got.mean() - 0.5) < 0.02 and abs(got.var() / 0.5 - 1) < 0.04, noise
