import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import nets
from diffjax.nets.transformer import stacked
from diffjax.train import optimiser

PARAMS = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}


def moved(rule, grads, steps=1):
  params, state = PARAMS, rule.init(PARAMS)
  for _ in range(steps):
    updates, state = rule.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_learning_rate():
  rate = optimiser.rate_schedule(100, 2.0, warmup=10, schedule='cosine', final_fraction=0.1)
  n = np.arange(10, 101)
  cosine = 2 * (0.1 + 0.9 * (1 + np.cos(np.pi * (n - 10) / 90)) / 2)
  np.testing.assert_allclose([rate(i) for i in range(10)], 2 * np.arange(10) / 10, atol=1e-6)
  np.testing.assert_allclose([rate(int(i)) for i in n], cosine, atol=1e-6)
  assert float(optimiser.rate_schedule(100, 2.0, schedule='constant')(99)) == 2


def test_decay_spares_biases():
  zero = {'kernel': jnp.zeros((2, 3)), 'bias': jnp.zeros(3)}
  params = moved(optimiser.adamw(10, learning_rate=0.1, weight_decay=0.5, schedule='constant'), zero)
  np.testing.assert_allclose(params['kernel'], 0.95, rtol=1e-6)
  np.testing.assert_array_equal(params['bias'], 1)


@pytest.mark.parametrize('net', [nets.dit, nets.uvit], ids=['dit', 'uvit'])
@pytest.mark.parametrize('name', ['adamw', 'lion'])
def test_decay_knows_no_scan(net, name):
  """One step of the layers one by one, stacked, is the step of the stacked layers: decay tells kernels from biases."""
  layers = net(depth=4, width=16, heads=2)
  shapes = jax.eval_shape(layers.init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)), jnp.zeros(1))
  leaves, tree = jax.tree.flatten(shapes)
  draws = [np.random.default_rng(i).normal(size=leaf.shape).astype('f') for i, leaf in enumerate(leaves)]
  params, grads = jax.tree.unflatten(tree, draws), jax.tree.unflatten(tree, [np.cos(draw) for draw in draws])
  rule = getattr(optimiser, name)(10, learning_rate=0.1, weight_decay=0.5, schedule='constant', clip=0)
  step = jax.jit(lambda p, g: optax.apply_updates(p, rule.update(g, rule.init(p), p)[0]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
    stacked(step(params, grads)),
    step(stacked(params), stacked(grads)),
  )


def test_clip():
  grads = {'kernel': jnp.full((2, 3), 4.0), 'bias': jnp.zeros(3)}
  params = moved(optimiser.sgd(10, learning_rate=1.0, schedule='constant', clip=0.5), grads)
  np.testing.assert_allclose(np.linalg.norm(1 - np.asarray(params['kernel'])), 0.5, rtol=1e-6)
  np.testing.assert_allclose(
    moved(optimiser.sgd(10, learning_rate=1.0, schedule='constant', clip=0), grads)['kernel'], -3
  )


@pytest.mark.parametrize('name', optimiser.__all__)
def test_every_optimiser_descends(name):
  start = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
  rule = getattr(optimiser, name)(50, learning_rate=0.05)
  params = moved(rule, start, 10)
  assert all(np.all(np.asarray(leaf) < 1) for leaf in params.values())


@pytest.mark.parametrize('options', [dict(schedule='linear'), dict(warmup=50), dict(learning_rate=0), dict(waurmup=3)])
def test_refused(options):
  with pytest.raises(ValueError, match='optimiser.* got .*allowed'):
    optimiser.adamw(50, **options)


def test_inverse_square_root():
  """EDM2's: a linear warm-up, the peak until `reference`, from there on peak / sqrt(n / reference)."""
  rate = optimiser.rate_schedule(1000, 2.0, warmup=10, schedule='inverse_sqrt', decay_from=50)
  np.testing.assert_allclose([rate(i) for i in (0, 5, 10, 49, 50, 200, 800)], [0, 1, 2, 2, 2, 1, 0.5], atol=1e-6)
  with pytest.raises(ValueError, match='optimiser.decay_from: got 0; allowed'):
    optimiser.rate_schedule(1000, 2.0, schedule='inverse_sqrt')
