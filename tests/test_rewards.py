"""Rewards: their values, and the digits network in JAX against the one of the protocol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import rewards
from diffjax.errors import InputError
from diffjax.metrics import digits


def test_of_points():
  x = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.3]])
  np.testing.assert_allclose(rewards.near((1.0, 0.0))(x, None), [0, -5, -0.09], rtol=1e-5)
  np.testing.assert_array_equal(rewards.named(dict(name='within', point=(1.0, 0.0), radius=0.4))(x, None), [1, 0, 1])
  assert rewards.named(abs) is abs


def test_of_digits_as_the_protocol_reads_them():
  """The log-probabilities of `metrics.digits`, to 1e-4, and its labels; a gradient where there should be one."""
  images, labels = digits.load()[1][0][:40], jnp.asarray(digits.load()[1][1][:40])
  logits = digits.forward(digits.networks()['label'], images)[1]
  want = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  np.testing.assert_allclose(rewards.digit()(jnp.asarray(images), labels), want[np.arange(40), labels], atol=1e-4)
  np.testing.assert_allclose(rewards.digit(3)(jnp.asarray(images), labels), want[:, 3], atol=1e-4)
  read = digits.labels(images)
  np.testing.assert_array_equal(rewards.is_digit()(jnp.asarray(images), labels), read == labels)
  np.testing.assert_array_equal(rewards.is_digit(3)(jnp.asarray(images), None), read == 3)
  slope = jax.grad(lambda x: rewards.digit(3)(x, None).sum())(jnp.asarray(images))
  assert float(jnp.abs(slope).max()) > 1e-3 and bool(jnp.isfinite(slope).all())


def test_of_pictures():
  """A bar of two pixels is twice as thick as one, up to its ends; a mirrored picture loses nothing."""
  bars = -np.ones((3, 16, 16, 1), np.float32)
  bars[0, :, 7:8] = bars[1, :, 7:9] = bars[2, 7:11, :] = 1
  width = rewards.thickness()(jnp.asarray(bars), None)
  np.testing.assert_allclose(width, [1, 2, 4], rtol=0.25)
  assert rewards.thickness(2.0)(jnp.asarray(bars), None).argmax() == 1
  np.testing.assert_allclose(rewards.symmetry()(jnp.asarray(bars[1:]), None), 0, atol=1e-6)
  assert rewards.symmetry()(jnp.asarray(bars[:1]), None)[0] < -0.1
  slope = jax.grad(lambda x: rewards.thickness()(x, None).sum())(jnp.asarray(bars))
  assert bool(jnp.isfinite(slope).all())


def test_refusals():
  image, point = jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 2))
  for make, message in (
    (lambda: rewards.named('far'), "reward: got 'far'; allowed: digit, is_digit, near, symmetry, thickness, within"),
    (lambda: rewards.named(dict(name='near', at=1)), 'reward: got near with at; allowed'),
    (lambda: rewards.within((0.0,), 0.0), 'radius: got 0.0; allowed'),
    (lambda: rewards.near((0.0,))(point, None), r'reward.point: got one of shape \(1,\); allowed'),
    (lambda: rewards.digit(3)(point, None), r'reward: got images of shape \(2,\); allowed: digits'),
    (lambda: rewards.digit(10)(image, None), 'reward.label: got 10; allowed: 0 to 9'),
    (lambda: rewards.digit()(image, None), 'reward.label: got none'),
    (lambda: rewards.symmetry('diagonal'), "axis: got 'diagonal'; allowed"),
    (lambda: rewards.thickness()(point, None), r'reward: got samples of shape \(2,\); allowed: images'),
  ):
    with pytest.raises(InputError, match=message):
      make()
