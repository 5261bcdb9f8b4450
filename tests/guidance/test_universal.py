"""Universal and Steered guidance on Gaussians: the forward part's known bias, the exact backward part, replacement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import exact, guidance, schedules, solvers
from diffjax.errors import InputError

V, R2 = 0.25, 0.25


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def near(matrix, y, r2, x0, t, cond):
  return -jnp.sum((x0 @ matrix.T - y) ** 2, -1) / (2 * r2)


def test_forward_alone_has_the_bias_of_its_gradient():
  """Prior N(0, v), y seen with noise r^2, c = v / r^2 = 1: the ODE's law has variance v e^{-c}, not v r^2/(v + r^2).

  Its map is affine, so two samples tell it. Mean c y int_0^1 exp(-c (1 - q^2) / 2) dq = .7248 y: both within 2%.
  """
  process = schedules.edm()
  denoise = exact.gaussian(np.zeros(1), V).denoiser(process)
  guided = guidance.universal(denoise, Partial(near, jnp.eye(1), jnp.ones(1), R2), 1.0)
  solver = solvers.heun(process, solvers.grids.karras(process, 256))
  low, high = np.asarray(solvers.sample(guided, solver, 80.0 * jnp.asarray([[-1.0], [1.0]])))[:, 0]
  np.testing.assert_allclose((low + high) / 2, 0.7248, rtol=0.02)
  np.testing.assert_allclose(((high - low) / 2) ** 2, V * np.exp(-1), rtol=0.02)
  assert guidance.cost(guided, 1.0) == 3


def test_backward_to_its_end_is_the_posterior_mean(x64):
  """|y - Hz|^2 / 2 r^2 + |z - x0_hat|^2 / 2 v_t with v_t = v sigma^2 / (v + sigma^2), within 1e-4."""
  process = schedules.edm()
  target, matrix, y = exact.gaussian([0.3, -0.2], V), jnp.asarray([[1.0, 0.5]]), jnp.asarray([0.3])
  spread = Partial(lambda v, t: v * t**2 / (v + t**2), V)
  x, t = jnp.asarray([[1.0, 2.0], [-1.0, 0.5], [30.0, -40.0]]), jnp.asarray([0.3, 2.0, 50.0])

  @jax.jit
  def run(x, t):
    denoise = target.denoiser(process)
    guided = guidance.prox(denoise, Partial(near, matrix, y, R2), 0.5, steps=60, spread=spread)
    return guided(x, t), target.observe(matrix, y, R2 * jnp.eye(1)).denoiser(process)(x, t)

  got, want = run(x, t)
  np.testing.assert_allclose(got.x0, want.x0, atol=1e-4)
  np.testing.assert_allclose(got.x0 + t[:, None] * got.eps, x, rtol=1e-12)


def halves(x0):
  return x0[:, :2]


def into_halves(y):
  return jnp.pad(y, ((0, 0), (0, 2)))


def pull(x0, t, cond):
  return -jnp.sum((x0 - 1) ** 4, -1)


def test_steered():
  """What is seen is replaced, what is not stays: exact for independent elements seen without noise. A network's loss is
  `tilt` at x0 with scale alpha / sigma, inside its interval, and pairs stay consistent."""
  process = schedules.cosine()
  denoise = exact.gaussian(np.full(4, 0.3), [0.1, 0.2, 0.3, 0.4]).denoiser(process)
  x, t = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32), jnp.asarray([0.2, 0.5, 0.8])
  y = jnp.asarray([[1.0, -1.0], [0.5, 0.2], [0.0, 2.0]])
  same = Partial(lambda process, t: 0.7 * jnp.exp(process.lam(t)), process)

  @jax.jit
  def run(x, t):
    made = guidance.replaced(denoise, halves, into_halves, y), guidance.steered(denoise, pull, 0.7, interval=(0.3, 0.8))
    return denoise(x, t), *(f(x, t) for f in made), guidance.tilt(denoise, pull, same, at='x0')(x, t)

  plain, replaced, steered, tilted = run(x, t)
  np.testing.assert_allclose(replaced.x0[:, :2], y, atol=1e-6)
  np.testing.assert_array_equal(replaced.x0[:, 2:], plain.x0[:, 2:])
  np.testing.assert_array_equal(steered.x0[0], plain.x0[0])
  np.testing.assert_allclose(steered.x0[1:], tilted.x0[1:], rtol=1e-4, atol=1e-5)
  for pred in (replaced, steered):
    np.testing.assert_allclose(process.perturb(pred.x0, pred.eps, t), x, atol=1e-5)


def test_bad_input_is_refused():
  denoise = exact.gaussian(np.zeros(2), 1.0).denoiser(schedules.edm())
  with pytest.raises(InputError, match='steps: got 0; allowed: a whole number'):
    guidance.prox(denoise, pull, 0.1, steps=0)
  with pytest.raises(InputError, match='interval: got'):
    guidance.steered(denoise, pull, 1.0, interval=(0.5, 0.2))
