"""One-step maps against tables, closed-form variances and finite differences of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import PROCESSES, gm_a

from diffjax import keys, schedules, solvers
from diffjax.exact import gaussian
from diffjax.solvers import churned_transfer, heun_transfer, renoise, sample, transfer

KINDS = ['vp_linear', 'edm', 'flow']


def case(kind):
  process = PROCESSES[kind]()
  return process, gm_a().denoiser(process), jax.random.normal(jax.random.key(0), (4, 2))


@pytest.mark.parametrize('kind', KINDS)
def test_transfer_is_a_row_of_ddim(x64, kind):
  process, denoise, x = case(kind)
  t, s = 0.8, 0.3
  row = sample(denoise, solvers.ddim(process, [t, s]), x)
  np.testing.assert_allclose(transfer(process, x, denoise(x, t).x0, t, s), row, rtol=1e-10)


@pytest.mark.parametrize('kind', KINDS)
def test_transfer_follows_the_line_both_ways(x64, kind):
  process, _, x0 = case(kind)
  eps = x0[::-1] + 1
  for t, s in ((0.9, 0.2), (0.2, 0.9), (0.5, 0.0)):
    at_t, at_s = process.perturb(x0, eps, t), process.perturb(x0, eps, s)
    np.testing.assert_allclose(transfer(process, at_t, x0, t, s), at_s, atol=1e-12)


@pytest.mark.parametrize('kind', KINDS)
def test_heun_transfer_is_two_rows_of_heun(x64, kind):
  process, denoise, x = case(kind)
  rows = sample(denoise, solvers.heun(process, [0.8, 0.3]), x)
  np.testing.assert_allclose(heun_transfer(denoise, x, 0.8, 0.3), rows, rtol=1e-10)


@pytest.mark.parametrize('kind', KINDS)
def test_renoise_reaches_the_marginal(x64, kind):
  """With x_s = alpha_s a + sigma_s b of unit variances, x_t has alpha_t^2 var(a) + sigma_t^2: weights in quadrature."""
  process = PROCESSES[kind]()
  s, t = 0.3, 0.8
  (al, si), (at, st) = (process.schedule(jnp.asarray(u)) for u in (s, t))
  one, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
  from_a = renoise(process, al * one, s, t, zero)
  from_b = renoise(process, si * one, s, t, zero)
  fresh = renoise(process, zero, s, t, one)
  np.testing.assert_allclose(from_a, at, rtol=1e-12)
  np.testing.assert_allclose(from_b**2 + fresh**2, st**2, rtol=1e-12)
  np.testing.assert_allclose(renoise(process, one, s, s, one), one)  # no way to go, no noise


def test_churned_transfer_is_renoise_then_transfer():
  process, denoise, x = case('edm')
  batch = keys.per_sample(jax.random.key(3), 4)
  up = renoise(process, x, 0.5, 0.7, keys.normal(batch, x))
  expected = transfer(process, up, denoise(up, 0.7).x0, 0.7, 0.2)
  np.testing.assert_allclose(churned_transfer(denoise, x, 0.5, 0.7, 0.2, batch), expected, rtol=1e-6)
  still = churned_transfer(denoise, x, 0.5, 0.5, 0.2, batch)
  np.testing.assert_allclose(still, transfer(process, x, denoise(x, 0.5).x0, 0.5, 0.2), rtol=1e-6)


def test_churned_transfer_keeps_the_marginal_of_a_gaussian():
  """Small steps from the law at t give the law at s, in variance, up to the first-order defect of one step."""
  process, n = schedules.edm(), 20000
  denoise = gaussian([0.0], 0.25).denoiser(process)
  t, up, s = 0.5, 0.55, 0.48
  x = np.sqrt(0.25 + t**2) * jax.random.normal(jax.random.key(0), (n, 1))
  y = churned_transfer(denoise, x, t, up, s, keys.per_sample(jax.random.key(1), n))
  # exactly: a linear map of a Gaussian of variance .25 + up^2
  gain = (0.25 + s * up) / (0.25 + up**2)
  assert np.var(y) == pytest.approx(gain**2 * (0.25 + up**2), rel=4 * np.sqrt(2 / n))


def test_times_may_differ_from_sample_to_sample(x64):
  for kind in KINDS:
    process, denoise, x = case(kind)
    t, s = np.array([0.9, 0.8, 0.6, 0.5]), np.array([0.5, 0.1, 0.3, 0.4])
    x0 = denoise(x, t).x0
    together = (
      transfer(process, x, x0, t, s),
      renoise(process, x, s, t, x0),
      heun_transfer(denoise, x, t, s),
    )
    for i in range(4):
      each = (
        transfer(process, x[i : i + 1], x0[i : i + 1], t[i], s[i]),
        renoise(process, x[i : i + 1], s[i], t[i], x0[i : i + 1]),
        heun_transfer(denoise, x[i : i + 1], t[i], s[i]),
      )
      for many, one in zip(together, each, strict=True):
        np.testing.assert_allclose(many[i], one[0], rtol=1e-10)


def test_images_and_gradients():
  """Shapes beyond vectors broadcast, dtype stays, and gradients in the times are finite."""
  process = schedules.vp_linear()
  x = jnp.ones((3, 2, 2, 1))
  t = jnp.asarray([0.9, 0.5, 0.2])
  out = transfer(process, x, 0.5 * x, t, t / 2)
  assert out.shape == x.shape and out.dtype == jnp.float32
  slopes = jax.grad(lambda t: jnp.sum(renoise(process, transfer(process, x, 0.5 * x, t, t / 2), t / 2, t, x)))(t)
  assert np.isfinite(slopes).all()
