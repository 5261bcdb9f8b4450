"""Couplings of noise and data: optimal permutations, unchanged marginals, and labels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, losses, schedules
from diffjax.errors import InputError
from diffjax.exact import ring8
from diffjax.losses.couplings import assignment, independent, minibatch_ot

RING = ring8(5.0, 0.15)


def pairs(n, seed=0):
  own = keys.per_sample(jax.random.key(seed), n)
  x = RING.sample(own)
  return x, keys.normal(keys.fold(own, 7), x)


@jax.jit
def costs(x, eps):
  """Mean |x - z|^2 of each batch (m, B, d) as it is, and assigned."""
  assigned = jax.lax.map(lambda pair: minibatch_ot()(*pair), (x, eps))
  return jnp.mean(jnp.sum((x - eps) ** 2, -1)), jnp.mean(jnp.sum((x - assigned) ** 2, -1))


@pytest.mark.slow
def test_the_cost_of_a_ring_falls_as_derived():
  """Independent 2 + 25 + 2 .15^2; 16.36 and 15.07 for batches of 16 and 64, within 5%: three standard errors."""
  x, eps = pairs(512)
  for size, want in ((16, 16.36), (64, 15.07)):
    alone, assigned = costs(x.reshape(-1, size, 2), eps.reshape(-1, size, 2))
    assert abs(alone - 27.045) <= 0.05 * 27.045 and abs(assigned - want) <= 0.05 * want


def test_the_permutation_is_the_best_of_all():
  """Of 5! by trying them; the rows of the noise are all there, each once."""
  x, eps = pairs(5, seed=3)
  order = np.asarray(assignment(x, eps))
  cost = lambda order: float(jnp.sum((x - eps[np.array(order)]) ** 2))  # noqa: E731
  assert sorted(order) == list(range(5))
  assert cost(order) <= min(map(cost, itertools.permutations(range(5)))) + 1e-4


@pytest.mark.slow
def test_within_a_class_noise_knows_no_label():
  """Only places of one label are exchanged, and the mean noise of a class is 0, where the plain one is far off."""
  x, eps = pairs(128)
  cond = jnp.argmin(jnp.sum((x[:, None] - RING.means) ** 2, -1), 1)
  assigned = minibatch_ot(classwise=True)(x, eps, cond)
  order = assignment(x, eps, cond)
  np.testing.assert_array_equal(cond[order], cond)
  np.testing.assert_array_equal(assigned, eps[order])
  plain, zero = minibatch_ot()(x, eps), np.asarray(cond == 0)
  assert np.asarray(plain)[zero, 0].mean() > 0.8
  for label in range(8):
    own = np.asarray(assigned)[np.asarray(cond) == label]
    assert np.abs(own.mean(0)).max() <= 4 / np.sqrt(len(own))


def test_the_loss_sees_the_permuted_noise_and_data_stay():
  process, seen = schedules.flow(), []
  net = lambda params, x, t, cond, key: seen.append(x) or jnp.zeros_like(x)  # noqa: E731
  x, _ = pairs(6)
  own, runs = keys.per_sample(jax.random.key(1), 6), {}
  for name, coupling in (('plain', None), ('independent', independent()), ('ot', minibatch_ot())):
    loss = losses.denoising(process, net, 'velocity', coupling=coupling)
    runs[name] = loss({'student': None}, {'x': x}, own)
  t = runs['plain'][1]['t'][:, None]
  eps = [(at - (1 - t) * x) / t for at in seen]
  np.testing.assert_array_equal(seen[0], seen[1])
  np.testing.assert_allclose(eps[2], eps[0][assignment(x, eps[0])], rtol=1e-3, atol=1e-3)
  np.testing.assert_array_equal(runs['ot'][1]['t'], runs['plain'][1]['t'])


def test_labels_are_refused_unless_within_a_class():
  net = lambda params, x, t, cond, key: x  # noqa: E731
  with pytest.raises(InputError, match='coupling: got minibatch_ot with labels'):
    losses.denoising(schedules.flow(), net, coupling=minibatch_ot(), null=8)
  losses.denoising(schedules.flow(), net, coupling=minibatch_ot(classwise=True), null=8)
  with pytest.raises(InputError, match='coupling: got minibatch_ot with labels'):
    minibatch_ot()(jnp.zeros((2, 2)), jnp.zeros((2, 2)), jnp.zeros(2, int))
