"""Draws belong to a sample: they depend on neither batch, offset nor neighbours, and have the law they name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys

KEY = jax.random.key(3)
N = 20_000


def same(a, b):
  np.testing.assert_array_equal(jax.random.key_data(a), jax.random.key_data(b))


def test_sample_k_is_the_same_in_any_batch():
  whole = keys.per_sample(KEY, 12)
  same(whole[:5], keys.per_sample(KEY, 5))
  same(whole[5:9], keys.per_sample(KEY, 4, start=5))
  same(whole[7:8], jax.jit(lambda i: keys.per_sample(KEY, 1, i))(7))
  like = jnp.zeros((12, 3, 2))
  for draw in (lambda k, x: keys.normal(k, x), lambda k, x: keys.uniform(k), lambda k, x: keys.bernoulli(k, 0.5)):
    np.testing.assert_array_equal(draw(whole, like)[5:9], draw(whole[5:9], like[5:9]))
  for part, alone in zip(keys.split(whole, 3), keys.split(whole[5:9], 3), strict=True):
    same(part[5:9], alone)
  same(keys.fold(whole, 4)[5:9], keys.fold(whole[5:9], 4))


def test_a_batch_of_keys_passes_and_others_are_refused():
  batch = keys.per_sample(KEY, 4)
  same(keys.per_sample(batch, 4), batch)
  with pytest.raises(ValueError, match=r'key: got a batch of shape \(4,\).*\(5,\)'):
    keys.per_sample(batch, 5)
  with pytest.raises(ValueError, match=r'key: .*jax.random.key'):
    keys.per_sample(jax.random.PRNGKey(0), 2)
  with pytest.raises(ValueError, match='key: got int'):
    keys.per_sample(0, 2)


def test_normal_is_standard_and_independent():
  """Bounds: 5 standard errors of N draws (mean 1/sqrt N, variance sqrt(2/N), correlation 1/sqrt N)."""
  tree = {'a': jnp.zeros((N, 2)), 'b': jnp.zeros((N,), jnp.bfloat16)}
  batch = keys.per_sample(KEY, N)
  draw = keys.normal(batch, tree)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), draw) == jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  again = keys.normal(keys.fold(batch, 1), tree)
  first, second = keys.split(keys.fold(batch, 2), 2)
  columns = [*draw['a'].T, draw['b'], *again['a'].T, keys.normal(first, tree['b']), keys.normal(second, tree['b'])]
  z = np.stack([np.asarray(c, np.float64) for c in columns])
  assert np.abs(z.mean(1)).max() < 5 / np.sqrt(N)
  assert np.abs(z.var(1) - 1).max() < 5 * np.sqrt(2 / N) + 1e-3  # bfloat16 rounding moves a variance by less than 1e-3
  correlation = np.corrcoef(z) - np.eye(len(z))
  assert np.abs(correlation).max() < 5 / np.sqrt(N)


def test_uniform_and_bernoulli():
  """Kolmogorov-Smirnov below 1.95 / sqrt N (level .001); frequencies within 5 standard errors."""
  u = np.sort(np.asarray(keys.uniform(keys.per_sample(KEY, N)), np.float64))
  assert 0 <= u[0] and u[-1] < 1
  assert np.abs(u - (np.arange(N) + 0.5) / N).max() < 1.95 / np.sqrt(N)
  p = jnp.where(jnp.arange(N) % 2, 0.1, 0.7)
  hit = np.asarray(keys.bernoulli(keys.per_sample(KEY, N), p))
  for part, rate in ((hit[1::2], 0.1), (hit[::2], 0.7)):
    assert abs(part.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / (N / 2))
  batch = keys.per_sample(KEY, N)
  assert not keys.bernoulli(batch, 0.0).any() and keys.bernoulli(batch, 1.0).all()


def test_every_seed_has_a_key_of_its_own():
  """The generator takes 32 bits: seeds that agree in all but one of them differ, and there are no others."""
  seeds = [0, 2**32 - 1, *(5 ^ 2**bit for bit in range(32))]
  found = {tuple(jax.random.key_data(keys.seeded(seed)).tolist()) for seed in seeds}
  assert len(found) == len(seeds)
  for seed in (-1, 2**32, 2**32 + 5, 2**63, -(2**63) - 1):
    with pytest.raises(ValueError, match=f'lot: got {seed}; allowed: a whole number from 0 to 4294967295'):
      keys.seeded(seed, 'lot')


@pytest.mark.parametrize('k', [-1, 2**31, 2**32 + 5])
def test_samples_beyond_the_last_are_refused(k):
  """Their index would be folded in by its lower 32 bits."""
  from diffjax.runs import generate

  with pytest.raises(ValueError, match=f'ks: got {k}; allowed: whole numbers from 0 to 2147483647'):
    generate.random_labels(0, np.array([0, k]), 10)
  assert generate.random_labels(0, np.array([2**31 - 1]), 10).shape == (1,)
