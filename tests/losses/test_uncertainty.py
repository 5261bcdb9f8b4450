"""The learned scale of the loss: at its optimum the logarithm of the loss at each level."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import keys, kinds, losses, schedules
from diffjax.losses import times, uncertainty, weights

PROCESS = schedules.edm(0.002, 80.0)
SD, WIDE = 0.5, 1.0  # what the kind assumes of the data, and what they are


def zero(params, x, t, cond, key):
  return jnp.zeros_like(x)


def level(t):
  """E|target|^2 of a network that says 0: (sigma^2 s^2 / sd^2 + sd^2) / (sigma^2 + sd^2), from 1 to (s / sd)^2 = 4."""
  t = np.asarray(t)
  return (t**2 * WIDE**2 / SD**2 + SD**2) / (t**2 + SD**2)


def made(**options):
  law = times.lognormal(-0.4, 1.0)
  return losses.denoising(PROCESS, zero, kinds.edm(SD), times=law, weight=weights.edm(SD), uncertainty=True, **options)


def test_values_by_hand():
  """exp(-u) L + u with the u of the head; the network is not told, its error is as before."""
  params = uncertainty.add_head({'w': jnp.ones(2)}, jax.random.key(0))
  batch = {'x': jax.random.normal(jax.random.key(1), (5, 3))}
  values, aux = jax.jit(made(), compiler_options={'xla_backend_optimization_level': 0})(
    {'student': params}, batch, jax.random.key(2)
  )
  plain = losses.denoising(PROCESS, zero, kinds.edm(SD), times=times.lognormal(-0.4, 1.0), weight=weights.edm(SD))
  before, _ = jax.jit(plain, compiler_options={'xla_backend_optimization_level': 0})(
    {'student': params}, batch, jax.random.key(2)
  )
  u = by_hand(params['uncertainty'], np.log(np.asarray(aux['t'])) / 4)
  np.testing.assert_allclose(aux['uncertainty'], u, atol=2e-5)
  np.testing.assert_allclose(values, np.exp(-u) * np.asarray(before) + u, rtol=1e-4)
  assert values.dtype == jnp.float32 and set(params) == {'w', 'uncertainty'}


def by_hand(head, c):
  """u of a head told c (B,), in float64."""
  f = {k: np.asarray(v, np.float64) for k, v in head['fourier'].items()}
  waves = np.sqrt(2) * np.cos(2 * np.pi * (c[:, None] * f['frequencies'] + f['phases']))
  w = np.asarray(head['linear']['mp_kernel'], np.float64)[:, 0]
  return waves @ (w / (1e-4 + np.sqrt(np.mean(w**2)))) / np.sqrt(128)


@pytest.mark.parametrize('name', ['edm', 've', 'flow'])
def test_told_a_quarter_of_the_noise_level(name, x64):
  """u is told -lam / 4 wherever |lam| <= 20, and 5 or -5 beyond; times by the inverse of each schedule.

  The head's waves are float32: 2 pi c f up to 130, rounded to 1e-5 each, 128 of them of weight 1 / sqrt 128 in the sum.
  """
  lam = np.asarray([-30, -21, -20, -19.5, -17, -12, -3, 0, 3, 12, 17, 19.5, 20, 21, 30.0])
  process, t = {
    'edm': (schedules.edm(), np.exp(-lam)),
    've': (schedules.ve(np.exp(-40.0), np.exp(40.0)), (40 - lam) / 80),
    'flow': (schedules.flow(), 1 / (1 + np.exp(lam))),
  }[name]
  params = uncertainty.add_head({}, jax.random.key(3))
  expected = by_hand(params['uncertainty'], np.clip(-lam, -20, 20) / 4)
  assert np.abs(np.diff(expected[2:-2])).min() > 0.01  # each of these levels is told from its neighbours
  np.testing.assert_allclose(uncertainty.log_level(params, process, jnp.asarray(t)), expected, rtol=0, atol=2e-4)


def test_stationary_at_the_logarithm():
  """d/du (e^-u L + u) = 0 and the value is 1 + log L at u = log L; the slope in L is 1 / L: all levels count alike."""
  values = jnp.asarray([0.01, 1.0, 7.0])
  du, dl = jax.vmap(jax.grad(lambda u, v: uncertainty.balanced(v, u), (0, 1)))(jnp.log(values), values)
  np.testing.assert_allclose(du, 0, atol=1e-6)
  np.testing.assert_allclose(dl, 1 / values, rtol=1e-6)
  np.testing.assert_allclose(uncertainty.balanced(values, jnp.log(values)), 1 + jnp.log(values), rtol=1e-6)


@pytest.mark.slow
def test_the_head_learns_the_level():
  """The minimiser u = log E[L | level] (arXiv:2312.02696 eq. 21): exp(u) within 10% of the expected weighted loss,
  between the 5% quantiles of the law.

  A network that says 0, so that the loss of each level has a closed form, from 1 to 4. The mean of 600 steps of 512
  rows of 16 has an error of 1% at any of some ten resolved levels; Adam's last steps (1e-3) add about as much.
  """
  loss, rule = made(), optax.adam(optax.cosine_decay_schedule(0.02, 600))
  params = uncertainty.add_head({}, jax.random.key(0))

  @jax.jit
  def train(params):
    def step(carry, key):
      params, opt = carry
      x, draw = jax.random.split(key)
      batch = {'x': WIDE * jax.random.normal(x, (512, 16))}
      grads = jax.grad(lambda p: loss({'student': p}, batch, draw)[0].mean())(params)
      updates, opt = rule.update(grads, opt, params)
      return (optax.apply_updates(params, updates), opt), None

    return jax.lax.scan(step, (params, rule.init(params)), jax.random.split(jax.random.key(1), 600))[0][0]

  t = jnp.exp(-0.4 + jnp.linspace(-1.645, 1.645, 21))
  before = np.exp(uncertainty.log_level(params, PROCESS, t)) / level(t)
  after = np.exp(uncertainty.log_level(train(params), PROCESS, t)) / level(t)
  assert np.abs(before - 1).max() > 0.5
  assert np.abs(after - 1).max() < 0.1


def test_finite_where_the_noise_level_is_not():
  """Processes told 1000 t, at times where lam is infinite: u is a function of lam, cut off."""
  process = schedules.flow()
  params = uncertainty.add_head({}, jax.random.key(0))
  t = jnp.asarray([0.0, 0.5, 1.0])
  assert jnp.isfinite(uncertainty.log_level(params, process, t)).all()
  same = uncertainty.log_level(params, PROCESS, jnp.exp(-process.lam(t[1:2])))
  np.testing.assert_allclose(uncertainty.log_level(params, process, t)[1:2], same, atol=1e-5)


def test_refused_without_a_head():
  with pytest.raises(ValueError, match=r"roles\['student'\]: got no 'uncertainty' among w; allowed"):
    jax.eval_shape(made(), {'student': {'w': 1.0}}, {'x': jnp.zeros((2, 3))}, keys.per_sample(jax.random.key(0), 2))
