"""Condition-embedding perturbation: a ridge on what classes differ by, in closed form; and where it acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, nets
from diffjax.nets.embedding import perturbed

K, D = 10, 2


def test_a_linear_model_of_perturbed_labels_is_a_ridge():
  """x = M c + z on c + gamma xi / sqrt K: M_hat = rho means, its spread S + (1 - rho) means means^T / K; 3%."""
  gamma, n = 0.7, 20000
  rng = np.random.default_rng(0)
  means = rng.standard_normal((D, K))
  means -= means.mean(1, keepdims=True)
  label = np.arange(n) % K
  own = keys.per_sample(jax.random.key(0), n)
  told = np.asarray(jax.jit(lambda c, key: perturbed(c, gamma, key))(jnp.eye(K)[label], own), float)
  np.testing.assert_allclose(np.square(told - np.eye(K)[label]).sum(1).mean(), gamma**2, rtol=0.02)
  x = means[:, label].T
  fit = np.linalg.lstsq(told, x, rcond=None)[0].T
  rho = 1 / (1 + gamma**2)
  np.testing.assert_allclose(fit, rho * means, atol=0.03)
  left = np.cov((x - told @ fit.T).T, bias=True)
  np.testing.assert_allclose(left, (1 - rho) * means @ means.T / K, atol=0.03)


def laws(n, gammas, draws=200):
  """W2^2 to the truth and the entropy, by gamma, of models fitted to n points a class; |mu|^2 = 2, unit spread."""
  rng, found = np.random.default_rng(1), np.zeros((2, len(gammas)))
  for _ in range(draws):
    means = rng.standard_normal((D, K))
    x = means[:, :, None] + rng.standard_normal((D, K, n))
    seen = x.mean(2)
    within = np.cov((x - seen[:, :, None]).reshape(D, -1), bias=True)
    for i, gamma in enumerate(gammas):
      rho = 1 / (1 + gamma**2)
      eig = np.linalg.eigvalsh(within + (1 - rho) * seen @ seen.T / K)
      found[:, i] += (
        np.square(rho * seen - means).sum(0).mean() + np.square(np.sqrt(eig) - 1).sum(),
        np.log(eig).sum() / 2,
      )
  return found / draws


def test_slight_corruption_helps_where_data_are_few():
  """The entropy rises with gamma; the distance falls, then rises; with more data the best gamma is smaller."""
  gammas = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)
  few, many = laws(3, gammas), laws(50, gammas)
  assert (np.diff(few[1]) > 0).all() and (np.diff(many[1]) > 0).all()
  best = [int(np.argmin(distance)) for distance in (few[0], many[0])]
  assert best[0] in (3, 4) and 1 <= best[1] <= 2
  np.testing.assert_allclose(few[0], (0.793, 0.775, 0.633, 0.549, 0.557, 0.726), rtol=0.25)


def test_it_acts_in_training_on_what_labels_say():
  """With keys the output moves, each sample by its own key; without any it does not. Refused without classes."""
  x, t, y = jnp.ones((3, 2)), jnp.full(3, 5.0), jnp.array([0, 1, 1])
  plain, noisy = nets.mlp(8, 1, classes=2), nets.mlp(8, 1, classes=2, perturb=0.5)
  shapes = jax.eval_shape(plain.init, jax.random.key(0), x, t, y)
  params = jax.tree.map(lambda s: jnp.asarray(np.random.default_rng(2).standard_normal(s.shape), jnp.float32), shapes)
  own = keys.per_sample(jax.random.key(1), 3)
  want, still = (jax.jit(net)(params, x, t, y) for net in (plain, noisy))
  np.testing.assert_array_equal(still, want)
  moved = jax.jit(noisy)(params, x, t, y, own)
  assert (np.abs(moved - want).max(1) > 0.01).all() and np.abs(moved[1] - moved[2]).max() > 0.01
  for make in (nets.mlp, nets.unet):
    with pytest.raises(ValueError, match='perturb: got 0.5; allowed: .* 0 without classes'):
      make(8, perturb=0.5)
