"""Mixtures of predictions on Gaussians: what each sampler makes of them, and that the weight rate makes them exact."""

import gaussian_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import exact, schedules
from diffjax.errors import InputError
from diffjax.guidance import autoguidance, cfg, cost, mix


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def test_three_laws_of_guidance(x64):
  """Scale 1.5, 2, 3: the ODE, the SDE and weighed particles end at three different Gaussians, each in closed form.

  Means within .012, of which .006 are the start at sigma 80; variances within 2.5%, 5% at scale 3.
  """
  scales = np.asarray([1.5, 2.0, 3.0])
  want = dict(
    flow=([1.2099, 1.3228, 1.4], [0.1118, 0.05, 0.01]),
    diffusion=([1.1382, 1.2, 1.24], [0.15, 0.10333, 0.06248]),
    weighed=([1.0714, 1.1111, 1.1538], [0.17857, 0.13889, 0.09615]),
  )

  denoise = laws.several()

  @jax.jit
  @jax.vmap
  def run(scale):
    made = cfg(denoise, scale)
    return dict(
      flow=laws.flow(made, 64), diffusion=laws.diffusion(made, 1600), weighed=laws.diffusion(made, 1600, weighed=True)
    )

  got = run(jnp.asarray(scales))
  for name, (mean, var) in want.items():
    np.testing.assert_allclose(got[name][0], mean, atol=0.012)
    np.testing.assert_allclose(got[name][1] / np.asarray(var), 1, atol=0.025 if name != 'flow' else 0.05)


def test_the_variance_of_an_affine_mix(x64):
  """Three Gaussians with weights 2, -.7, -.3, the last a function of t: prod v_i^{w_i}, within 3%."""
  made = mix(laws.alone(0), (laws.alone(1), laws.alone(2)), (-0.7, Partial(jnp.multiply, jnp.asarray(0.0))))
  made = made.replace(weights=(made.weights[0], Partial(lambda w, t: w + 0 * t, jnp.asarray(-0.3))))
  _, var = jax.jit(lambda made: laws.flow(made, 96))(made)
  v = np.asarray(laws.VARIANCES)
  assert var == pytest.approx(np.prod(v ** [2.0, -0.7, -0.3]), rel=0.03)
  assert cost(made, 0.5) == 3


def test_autoguidance_undoes_smoothing(x64):
  """v = 1 seen through smoothings .2 and .6: at scale 1.634 the ODE ends with the variance 1, within 1%."""
  edm = schedules.edm()
  worse, better = (exact.gaussian(np.zeros(1), 1 + d).denoiser(edm) for d in (0.6, 0.2))
  run = jax.jit(lambda scale: laws.flow(autoguidance(better, worse, scale), 96)[1])
  best = np.log(1.6) / np.log(1.6 / 1.2)
  assert best == pytest.approx(1.634, abs=5e-4)
  assert run(best) == pytest.approx(1, rel=0.01) and run(1.0) == pytest.approx(1.2, rel=0.01)
  assert run(3.0) == pytest.approx(1.2**3 * 1.6**-2, rel=0.03)  # contracted


@pytest.mark.parametrize('process', [schedules.cosine, schedules.flow, schedules.edm])
def test_the_weight_rate_solves_the_equation_of_the_product(process, x64):
  """q = prod p_i^{b_i}: dq/ds = -div(q drift) + g^2/2 lap q + (rate + a number of s alone) q, in reverse time s."""
  process = process()
  laws_ = [exact.gaussian(np.asarray(m), np.asarray(v)) for m, v in (([1, 0], [0.3, 1.0]), ([0, 0.5], [1.2, 0.7]))]
  first, second = (law.denoiser(process) for law in laws_)
  made, b = mix(first, (second,), (-0.8,)), (1.8, -0.8)
  t = 0.4 * float(process.t_max) if not process.by_noise else 0.7
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))

  def log_q(x, t):
    return sum(w * law.log_density(x[None], *process.schedule(t))[0] for w, law in zip(b, laws_, strict=True))

  @jax.jit
  def residual(x):
    f, g2 = process.drift(t), process.g2(t)
    slope, lap = jax.grad(log_q)(x, t), jnp.trace(jax.hessian(log_q)(x, t))
    drift = lambda x: -f * x - g2 * made(x[None], t).eps[0] / process.schedule(t)[1]  # noqa: E731
    moved = jnp.trace(jax.jacfwd(drift)(x)) + slope @ drift(x)
    rate = made(x[None], t).aux['weight_rate'][0]
    return -jax.grad(log_q, 1)(x, t) + moved - g2 / 2 * (lap + slope @ slope) - rate

  left = jax.vmap(residual)(x)
  np.testing.assert_allclose(left, left[0], rtol=1e-9, atol=1e-9)


def test_weights_of_zero_and_one():
  """Weight 0 is the first denoiser and weight 1 the other's, to rounding; scale 1 of autoguidance is the model."""
  first, second = laws.alone(0), laws.alone(2)
  x, t, cond = jnp.linspace(-3, 3, 5)[:, None], 0.7, jnp.zeros(5, jnp.int32)
  for made in (mix(first, (second,), (0.0,)), autoguidance(first, second, 1.0)):
    for got, want in zip(made(x, t, cond)[:2], first(x, t, cond)[:2], strict=True):
      np.testing.assert_array_equal(got, want)
  np.testing.assert_allclose(mix(first, (second,), (1.0,))(x, t, cond).x0, second(x, t, cond).x0, rtol=1e-6)


def test_what_each_remembers_is_kept_apart():
  class Counter:
    process = schedules.edm()

    def __init__(self, by):
      self.by = by

    def __call__(self, x, t, cond=None, memory=None):
      now = (jnp.zeros(len(x)) if memory is None else memory) + self.by
      pred = laws.alone(0)(x, t, jnp.zeros(len(x), jnp.int32))
      return pred._replace(aux={'memory': now})

  made, x = mix(Counter(1.0), (laws.alone(1), Counter(10.0)), (0.5, 0.5)), jnp.ones((2, 1))
  memory = made(x, 0.5, jnp.zeros(2, jnp.int32)).aux['memory']
  memory = made(x, 0.5, jnp.zeros(2, jnp.int32), memory).aux['memory']
  assert memory[1] is None
  np.testing.assert_array_equal(memory[0], [2, 2])
  np.testing.assert_array_equal(memory[2], [20, 20])


def test_refusals():
  with pytest.raises(InputError, match='weights: got 2 for 1 other denoisers; allowed: one each'):
    mix(laws.alone(0), (laws.alone(1),), (0.5, 0.5))
