"""Operators against their dense matrices: adjoints, pseudo-inverses, solves; noise; refusals in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import inverse, keys
from diffjax.errors import InputError
from diffjax.inverse.solving import conjugate_gradients

SHAPE = (4, 6, 3)


def flipped(x):
  return x[:, ::-1, :4] - 2 * x[:, :, 2:]


OPERATORS = {
  'mask': lambda: inverse.mask(SHAPE, 'outside', share=0.7),
  'of each': lambda: inverse.mask(SHAPE, np.arange(2 * 24).reshape(2, 4, 6, 1) % 3 == 0),
  'blur': lambda: inverse.blur(SHAPE, 0.6),
  'downsample': lambda: inverse.downsample(SHAPE, 2),
  'grey': lambda: inverse.grey(SHAPE),
  'projection': lambda: inverse.projection(SHAPE, 7),
  'fourier': lambda: inverse.fourier(SHAPE, 0.4),
  'linear': lambda: inverse.linear(flipped, SHAPE),
  'compose': lambda: inverse.compose(inverse.blur(SHAPE, 0.5), inverse.downsample(SHAPE), inverse.grey((2, 3, 3))),
}


def draw(seed, *shape):
  return np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float32)


@pytest.mark.parametrize('name', OPERATORS)
def test_an_operator_is_its_matrix(name):
  """<A x, y> = <x, A^T y>, A A^+ A = A, A^+ of least norm, and (a + b A A^T)^{-1}, against NumPy."""
  operator = OPERATORS[name]()
  x, y, a, b = draw(0, *SHAPE), draw(1, *operator.out), np.float32([0.3, 0.7]), np.float32(1.5)

  @jax.jit
  def all_of(x, y):
    solved = (operator.solve(y, a, b), operator.solve(y, 0.5 + y**2, 1.0))
    unit = operator if name == 'of each' else operator(jnp.eye(x[0].size).reshape(-1, *SHAPE))
    return unit, operator(x), operator.adjoint(y), operator.pinv(y), *solved

  unit, *got = all_of(x, y)
  if name == 'of each':  # each sample has a matrix of its own, which is diagonal
    matrices = [np.diag(keep.ravel()) for keep in np.broadcast_to(np.asarray(operator.keep), (2, *SHAPE))]
  else:
    matrices = [np.asarray(unit, np.float64).reshape(x[0].size, -1).T] * 2
  seen, back, inverse_, solved, elementwise = (np.asarray(part, np.float64).reshape(2, -1) for part in got)
  for i, m in enumerate(matrices):
    vx, vy = x[i].ravel().astype(float), y[i].ravel().astype(float)
    np.testing.assert_allclose(seen[i], m @ vx, atol=2e-5)
    np.testing.assert_allclose(back[i], m.T @ vy, atol=2e-5)
    np.testing.assert_allclose(inverse_[i], np.linalg.pinv(m, rcond=1e-3) @ vy, atol=2e-3)
    gram = m @ m.T
    np.testing.assert_allclose(solved[i], np.linalg.solve(a[i] * np.eye(len(vy)) + b * gram, vy), atol=1e-4)
    np.testing.assert_allclose(elementwise[i], np.linalg.solve(np.diag(0.5 + vy**2) + gram, vy), atol=1e-4)


def test_conjugate_gradients_solve_each_sample_alone():
  """A converged system stays, a zero right-hand side is 0, a singular one has the solution of least norm."""
  basis = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0].astype(np.float32)
  m = np.float32((basis * [3, 1, 0.2, 0]) @ basis.T)
  b = np.stack([m @ np.float32([1, 2, 3, 4]), 0 * basis[0], basis[:, 0]])
  x = conjugate_gradients(lambda v: v @ m, jnp.asarray(b), 8)
  np.testing.assert_allclose(x, b @ np.linalg.pinv(m, rcond=1e-4), atol=1e-4)


@pytest.mark.parametrize('name', ['gaussian', pytest.param('poisson', marks=pytest.mark.slow)])
def test_noise_has_its_moments(name):
  """Mean A x, and the variance that the likelihood takes; within 4 standard errors."""
  x, key = jnp.full((4000, 1), 0.2), keys.per_sample(jax.random.key(0), 4000)
  noise, var = (inverse.gaussian(0.3), 0.09) if name == 'gaussian' else (inverse.poisson(50.0), 2 * 1.2 / 50)
  y = noise.draw(key, x)
  assert abs(float(jnp.mean(y)) - 0.2) < 4 * np.sqrt(var / 4000)
  assert abs(float(jnp.var(y)) / var - 1) < 4 * np.sqrt(2 / 4000) + 0.02
  np.testing.assert_allclose(jnp.mean(noise.variance(y)), var, rtol=0.02)


def test_the_variance_of_counts():
  """y = -1 + 2 n / rate of n counts: 4 n / rate^2, of one count at least."""
  np.testing.assert_allclose(
    inverse.poisson(50.0).variance(jnp.asarray([-1.0, 0, 1])), [4 / 2500, 0.04, 0.08], rtol=1e-5
  )


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: inverse.mask(SHAPE)(np.zeros((2, 4, 6))), r'x: got shape \(2, 4, 6\); allowed: \(B, 4, 6, 3\)'),
    (lambda: inverse.downsample(SHAPE).adjoint(np.zeros((2, *SHAPE))), 'y: got shape'),
    (lambda: inverse.mask(SHAPE, 'middle'), "keep: got 'middle'; allowed: left"),
    (lambda: inverse.mask(SHAPE, np.full(SHAPE, 0.5)), 'keep: got values'),
    (lambda: inverse.mask(SHAPE, np.ones((5, 1))), r'keep: got shape \(5, 1\)'),
    (lambda: inverse.mask((2,), 'left'), r"keep: got 'left' for examples of shape \(2,\)"),
    (lambda: inverse.downsample(SHAPE, 4), 'factor: got 4'),
    (lambda: inverse.blur((2,)), r'shape: got examples of shape \(2,\); allowed: images'),
    (lambda: inverse.blur(SHAPE, 0.0), 'width: got 0.0'),
    (lambda: inverse.grey(SHAPE, (1, 2)), 'weights: got'),
    (lambda: inverse.projection(SHAPE, 80), 'rows: got 80; allowed: 1 to 72'),
    (lambda: inverse.matrix((2,), np.ones((2, 3))), r'rows: got shape \(2, 3\)'),
    (lambda: inverse.fourier(SHAPE, 0.0), 'share: got 0.0'),
    (lambda: inverse.linear(jnp.square, SHAPE), 'fn: got a function that is not linear'),
    (lambda: inverse.linear(lambda x: x - x.mean(0), SHAPE), 'fn: got a function that is not linear'),
    (lambda: inverse.linear(flipped, SHAPE, lambda y: jnp.zeros((2, *SHAPE))), 'adjoint: got another map'),
    (lambda: inverse.compose(inverse.grey(SHAPE), inverse.blur(SHAPE)), r'operators\[1\]: got'),
    (lambda: inverse.observation(inverse.grey(SHAPE), np.zeros(SHAPE)), 'y: got shape'),
    (lambda: inverse.gaussian(0.0), 'std: got 0.0'),
    (lambda: inverse.poisson(-1.0), 'rate: got -1.0'),
  ],
)
def test_refusals(make, message):
  with pytest.raises(InputError, match=message) as refused:
    make()
  assert '\n' not in str(refused.value)
