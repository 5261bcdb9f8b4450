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


@pytest.mark.quick('adamw-dit')
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


PEAK, CLIP = 0.1, 0.5
OPTIONS = [
  ('adamw', {}), ('adamw', dict(b1=0.7, b2=0.6, eps=0.3, weight_decay=0.4)), ('adam', {}),
  ('adam', dict(b1=0.7, b2=0.6, eps=0.3)), ('lion', {}), ('lion', dict(b1=0.7, b2=0.3, weight_decay=0.4)),
  ('sgd', {}), ('sgd', dict(momentum=0.7)),
]  # fmt: skip


def by_formula(name, grads, rates, w, b1=0.9, b2=None, eps=1e-8, weight_decay=1e-2, momentum=0.0):
  """The published update of one leaf, step by step in float64; the defaults are the papers'."""
  b2 = {'lion': 0.99}.get(name, 0.999) if b2 is None else b2
  decay = weight_decay if name in ('adamw', 'lion') and w.ndim == 2 else 0.0
  m = v = np.zeros_like(w)
  for k, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
    if name == 'sgd':
      m = momentum * m + g
      w = w - rate * m
    elif name == 'lion':  # arXiv:2302.06675, program 1
      direction = np.sign(b1 * m + (1 - b1) * g)
      m = b2 * m + (1 - b2) * g
      w = w - rate * (direction + decay * w)
    else:  # arXiv:1412.6980, algorithm 1; the decay of arXiv:1711.05101, algorithm 2, times the whole rate
      m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
      w = w - rate * (m / (1 - b1**k) / (np.sqrt(v / (1 - b2**k)) + eps) + decay * w)
  return w


@pytest.mark.parametrize('name, options', OPTIONS, ids=lambda value: value if isinstance(value, str) else len(value))
def test_first_two_steps_by_formula(name, options):
  """The rates are those of counts 0 and 1; the gradient is clipped by the norm of all leaves, before the moments.

  The first gradient is above the clip, the second below it: what is clipped is not the update, whose norm is another.
  Float32: a few roundings of numbers below 3.
  """
  rng = np.random.default_rng(3)
  start = {'kernel': rng.normal(size=(3, 4)), 'bias': rng.normal(size=4)}
  grads = [{k: size * rng.normal(size=w.shape) for k, w in start.items()} for size in (3.0, 0.05)]
  norms = [np.sqrt(sum(np.sum(g**2) for g in grad.values())) for grad in grads]
  assert norms[0] > 5 * CLIP and norms[1] < CLIP
  clipped = [{k: g * min(1, CLIP / norm) for k, g in grad.items()} for grad, norm in zip(grads, norms, strict=True)]
  rates = [PEAK, PEAK * (1 + np.cos(np.pi / 3)) / 2]
  expected = {k: by_formula(name, [g[k] for g in clipped], rates, w, **options) for k, w in start.items()}
  rule = getattr(optimiser, name)(3, learning_rate=PEAK, clip=CLIP, **options)
  params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), start)
  state = rule.init(params)
  for grad in grads:
    updates, state = rule.update(jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grad), state, params)
    params = optax.apply_updates(params, updates)
  for k in start:
    np.testing.assert_allclose(params[k], expected[k], rtol=0, atol=2e-6)


def test_gradients_are_clipped_at_1_by_default():
  grads = {'kernel': jnp.full((2, 3), 4.0), 'bias': jnp.full(3, 3.0)}
  for name in optimiser.__all__:
    rule = getattr(optimiser, name)
    a, b = (moved(rule(10, **clip), grads, 1)['kernel'] for clip in ({}, dict(clip=1.0)))
    np.testing.assert_array_equal(a, b)
  whole = moved(optimiser.sgd(10, learning_rate=1.0, schedule='constant'), grads)
  assert sum(np.sum((1 - np.asarray(w)) ** 2) for w in whole.values()) == pytest.approx(1, rel=1e-5)


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
