"""The Fokker-Planck residual: zero of every exact law, the derived one of a wrong Gaussian, and what it regularises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, losses, nets, schedules
from diffjax.errors import InputError
from diffjax.exact import mixture
from diffjax.losses.fokker_planck import Potential, residual

LAW = mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])


@pytest.mark.quick('ve')
@pytest.mark.parametrize('name', ['vp_linear', 'sub_vp', 've'])
def test_it_vanishes_at_every_exact_law(name, x64):
  process = getattr(schedules, name)()
  law = mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])
  u = lambda x, t: law.log_density(x, *process.schedule(t))  # noqa: E731
  r = np.random.default_rng(0)
  x, t = jnp.asarray(1.5 * r.standard_normal((20, 2))), jnp.asarray(r.uniform(0.1, 0.9, 20))
  assert np.abs(residual(process, u, x, t)).max() < 1e-8 * float(jnp.max(process.g2(t)))


def test_a_wrong_gaussian_has_the_derived_residual(x64):
  """u of variance v (1 + .1 t) instead of v: R = (x^2 / v_h - 1) rho / 2, rho = (v_h' - 2 f v_h - g^2) / v_h."""
  process = schedules.vp_linear()

  def wrong(t):
    alpha, sigma = process.schedule(t)
    return (0.25 * alpha**2 + sigma**2) * (1 + 0.1 * t)

  u = lambda x, t: -(x[:, 0] ** 2 / wrong(t) + jnp.log(wrong(t))) / 2  # noqa: E731
  r = np.random.default_rng(1)
  x, t = jnp.asarray(r.standard_normal((10, 1))), jnp.asarray(r.uniform(0.1, 0.9, 10))
  rate = jax.vmap(jax.grad(wrong))(t)
  rho = (rate - 2 * process.drift(t) * wrong(t) - process.g2(t)) / wrong(t)
  np.testing.assert_allclose(residual(process, u, x, t), (x[:, 0] ** 2 / wrong(t) - 1) * rho / 2, rtol=1e-6)


@pytest.mark.slow
def test_probes_are_unbiased():
  process, n = schedules.vp_linear(), 4000
  u = lambda x, t: -jnp.sum(x**2, -1) + jnp.sin(x[:, 0] * x[:, 1] + t)  # noqa: E731
  x, t = jnp.tile(jnp.asarray([[0.4, -0.7]]), (n, 1)), jnp.full(n, 0.5)
  probes = jnp.sign(jax.random.normal(jax.random.key(0), (1, n, 2)))
  each = np.asarray(residual(process, u, x, t, probes) - residual(process, u, x, t))
  assert abs(each.mean()) <= 4 * each.std() / np.sqrt(n) > 0


def net():
  made = nets.mlp(width=16, depth=1)
  params = made.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1), None)
  return Potential(made), jax.tree.map(lambda p: p + 0.2 * jax.random.normal(jax.random.key(1), p.shape), params)


@pytest.mark.slow
def test_the_network_is_the_gradient_of_its_log_density():
  potential, params = net()
  x, t, h = jnp.asarray([[0.3, -0.2], [1.0, 0.5]]), jnp.full(2, 100.0), 1e-2
  up, down = (potential.log_density(params, x + s * jnp.asarray([h, 0.0]), t) for s in (1, -1))
  np.testing.assert_allclose(potential(params, x, t)[:, 0], (up - down) / (2 * h), rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_the_loss_adds_both_and_weight_zero_is_denoising():
  potential, params = net()
  process, data = schedules.vp_linear(), {'x': LAW.sample(keys.per_sample(jax.random.key(0), 6))}
  own = keys.per_sample(jax.random.key(1), 6)
  for box in (0.0, 3.5):
    value, aux = losses.fokker_planck(process, potential, weight=0.3, box=box)({'student': params}, data, own)
    np.testing.assert_allclose(value, aux['error'] + 0.3 * (aux['residual'] + aux['border']), rtol=1e-5)
    assert (np.asarray(aux['residual']) > 0).all() and (np.asarray(aux['border']) > 0).all() == bool(box)
  plain = losses.denoising(process, potential, 'score')({'student': params}, data, own)[1]
  sigma = process.schedule(plain['t'])[1]
  np.testing.assert_allclose(aux['error'], sigma**2 * plain['error'], rtol=1e-4)


def test_bad_input_is_refused():
  process, (potential, _) = schedules.vp_linear(), net()
  for given, options, told in (
    (potential.net, {}, 'net: got Apply'),
    (potential, dict(weight=-1.0), 'weight, box: got'),
    (potential, dict(probe='gaussian'), 'probe: got'),
  ):
    with pytest.raises(InputError, match=told):
      losses.fokker_planck(process, given, **options)
