import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import resample
from diffjax.nets.attention import attend
from diffjax.nets.embedding import Label, gaussian_fourier, sincos
from diffjax.nets.layers import Conv, Dropout, GroupNorm, groups_of


def test_sincos_order_and_range():
  t = jnp.array([0.0, 1.0, 999.0])
  e = np.asarray(sincos(t, 8))
  w = 10000.0 ** -np.array([0, 1 / 3, 2 / 3, 1])
  np.testing.assert_allclose(e[:, :4], np.sin(np.outer(t, w)), atol=1e-4)
  np.testing.assert_allclose(e[:, 4:], np.cos(np.outer(t, w)), atol=1e-4)
  assert sincos(t.astype(jnp.bfloat16), 8).dtype == jnp.float32
  with pytest.raises(ValueError, match='^size: got 7'):
    sincos(t, 7)


def test_gff_is_fixed_and_has_its_kernel():
  """E cos(2 pi W (u - u')) = exp(-2 pi^2 s^2 (u - u')^2): the mean of 20000 cosines is that to 4/sqrt(40000)."""
  u = jnp.array([0.1, 0.13])
  e = gaussian_fourier(u, 20000, scale=4.0)
  assert e.shape == (2, 40000) and e.dtype == jnp.float32
  np.testing.assert_array_equal(e, gaussian_fourier(u, 20000, scale=4.0))
  np.testing.assert_allclose(e[0] @ e[1] / 20000, np.exp(-2 * np.pi**2 * 16 * 0.03**2), atol=0.02)


def test_label_null_is_the_last_row():
  module = Label(3, 4)
  variables = module.init(jax.random.key(0), None, 2)
  table = variables['params']['table'].value
  assert table.shape == (4, 4)
  np.testing.assert_array_equal(module.apply(variables, None, 2), table[jnp.array([3, 3])])
  np.testing.assert_array_equal(module.apply(variables, jnp.array([2, 0]), 2), table[jnp.array([2, 0])])


@pytest.mark.parametrize(
  'channels, groups', [(4, 1), (8, 2), (32, 8), (96, 24), (128, 32), (384, 32), (132, 22), (3, 1), (7, 1)]
)
def test_groups(channels, groups):
  assert groups_of(channels) == groups


def test_group_norm_normalises_each_group():
  """Groups of very different mean and size come out with mean 0 and variance 1; a mean of 300 std costs 300^2 eps."""
  x = jax.random.normal(jax.random.key(0), (2, 5, 3, 16)) * 10.0 ** jnp.arange(-1, 3).repeat(4) + 3.0
  y, _ = GroupNorm().init_with_output(jax.random.key(0), x)
  y = y.reshape(2, 15, 4, 4)
  np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-4)
  np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-3)
  far, _ = GroupNorm().init_with_output(jax.random.key(0), x[..., 4:8] + 300.0)
  np.testing.assert_allclose(far.reshape(2, -1).var(1), 1, atol=0.05)


def test_group_norm_keeps_float32_statistics():
  x = (jax.random.normal(jax.random.key(0), (1, 64, 64, 8)) + 4).astype(jnp.bfloat16)
  y, _ = GroupNorm(jnp.bfloat16).init_with_output(jax.random.key(0), x)
  want, _ = GroupNorm().init_with_output(jax.random.key(0), x.astype(jnp.float32))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y, want.astype(jnp.bfloat16))


def test_attend_is_a_mean_and_a_lookup():
  v = jax.random.normal(jax.random.key(0), (2, 6, 4))
  np.testing.assert_allclose(attend(v * 0, v, v), jnp.broadcast_to(v.mean(1, keepdims=True), v.shape), atol=1e-6)
  one_hot = jnp.broadcast_to(jnp.eye(6), (2, 6, 6))
  np.testing.assert_allclose(attend(1e3 * one_hot, one_hot, v), v, atol=1e-6)


@pytest.mark.parametrize('halve, double', [resample.nearest, resample.fir])
def test_resample_keeps_constants_inside_and_is_adjoint(halve, double):
  """Both filters keep a constant (off the border) and doubling is four times the transpose of halving."""
  x, y = jax.random.normal(jax.random.key(0), (2, 8, 6, 3)), jax.random.normal(jax.random.key(1), (2, 4, 3, 3))
  np.testing.assert_allclose(4 * jnp.vdot(halve(x), y), jnp.vdot(x, double(y)), rtol=1e-4)
  ones = jnp.ones((1, 8, 8, 1))
  np.testing.assert_allclose(halve(ones)[:, 1:-1, 1:-1], 1, atol=1e-6)
  np.testing.assert_allclose(double(ones)[:, 1:-1, 1:-1], 1, atol=1e-6)


def test_fir_halves_a_ramp_to_a_ramp():
  ramp = jnp.broadcast_to(jnp.arange(8.0)[:, None, None], (1, 8, 8, 1))
  np.testing.assert_allclose(resample.fir[0](ramp)[0, 1:-1, 1, 0], [2.5, 4.5], atol=1e-6)
  np.testing.assert_allclose(resample.fir[1](ramp)[0, 1:5, 5, 0], [0.25, 0.75, 1.25, 1.75], atol=1e-6)


def test_one_by_one_conv_is_the_conv():
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  y, variables = Conv(5, size=1).init_with_output(jax.random.key(1), x)
  kernel = variables['params']['kernel'].value
  want = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(y, want, atol=1e-6)


def test_dropout_rate_and_scale():
  """20000 draws: the share kept within 4 sd of 0.7; kept values divided by exactly the probability used."""
  keys = jax.random.split(jax.random.key(0), 4)
  y = Dropout(0.3).apply({}, jnp.ones((4, 50, 100)), keys)
  kept = (y != 0).mean()
  assert abs(kept - 0.7) < 4 * np.sqrt(0.21 / 20000)
  np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=3e-5)
  neighbours = np.corrcoef(np.asarray(y).reshape(-1)[0::2], np.asarray(y).reshape(-1)[1::2])[0, 1]
  assert abs(neighbours) < 4 / np.sqrt(10000), 'the halves of one 32-bit draw are independent'
  assert jnp.abs(y[0] - y[1]).max() > 0


def test_dropout_of_an_odd_size():
  y = Dropout(0.5).apply({}, jnp.ones((2, 7)), jax.random.split(jax.random.key(0), 2))
  assert y.shape == (2, 7)
