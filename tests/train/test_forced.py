"""Forced weight normalisation: rows stay at unit mean square, and grow without it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from diffjax.nets.magnitude import MP_KERNEL, MPDense, mp_silu
from diffjax.train import optimiser
from diffjax.train.forced import force_norm, project
from diffjax.train.roles import Method, Phase
from diffjax.train.sharding import make_mesh, state_shardings
from diffjax.train.step import init_state, make_train_step


class Net(nn.Module):
  """Three magnitude-preserving layers with a gain at the end."""

  @nn.compact
  def __call__(self, x):
    h = mp_silu(MPDense(32, name='d0')(x))
    h = mp_silu(MPDense(32, name='d1')(h))
    self.sow('features', 'h', h)
    return MPDense(2, name='d2')(h, self.param('gain', nn.initializers.zeros, ()))


PARAMS = nn.meta.unbox(Net().init(jax.random.key(0), jnp.zeros((1, 8))))['params']


def loss(roles, batch, key):
  x = batch['x']
  goal = jnp.stack([jnp.sin(3 * x[:, 0]) * x[:, 1], x[:, 2] ** 2 - 1], -1)
  return jnp.mean((Net().apply({'params': roles['student']}, x) - goal) ** 2, -1), {}


def sizes(params):
  """The rms of every row of every kernel."""
  kernels = [w for path, w in jax.tree.leaves_with_path(params) if path[-1].key == MP_KERNEL]
  return np.concatenate([np.sqrt(np.mean(np.asarray(w) ** 2, 0)) for w in kernels])


def trained(rule, steps):
  """The state after so many steps, and the rms of all rows after each."""
  method = Method((Phase('student', loss, rule),))
  batch = lambda key: {'x': jax.random.normal(key, (64, 8))}  # noqa: E731
  state = init_state(method, {'student': PARAMS}, jax.random.key(1), batch(jax.random.key(0)))
  step = make_train_step(method)

  @partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
  def run(state):
    def one(state, key):
      state, signals = step(state, batch(key), (0,))
      kernels = [w for p, w in jax.tree.leaves_with_path(state.roles) if p[-1].key == MP_KERNEL]
      return state, (signals['loss'], jnp.concatenate([jnp.sqrt(jnp.mean(w**2, 0)) for w in kernels]))

    return jax.lax.scan(one, state, jax.random.split(jax.random.key(2), steps))

  return run(state)


@pytest.mark.slow
def test_rows_keep_their_size_with_and_grow_without():
  """arXiv:2312.02696 sec. 2.3: 500 steps of Adam, rows at 1 to 1e-3, activations in [.5, 2], and the loss falls.

  Without: Adam's step is not the gradient's direction, so single rows may shrink; but n steps of r an element, each in
  a direction of its own, add n r^2 = .45 to a mean square of 1. Half of that in the mean square is asked for.
  """
  options = dict(learning_rate=0.03, b2=0.99, schedule='constant', clip=0.0)
  state, (losses, rows) = trained(optimiser.adam(500, **options, forced_norm=True), 500)
  np.testing.assert_allclose(rows, 1, atol=1e-3)
  x = jax.random.normal(jax.random.key(3), (256, 8))
  h = Net().apply({'params': state.roles['student']}, x, mutable='features')[1]['features']['h'][0]
  assert 0.5 < jnp.sqrt(jnp.mean(h**2)) < 2
  assert losses[-50:].mean() < 0.5 * losses[0]
  free = np.mean(trained(optimiser.adam(500, **options), 500)[1][1] ** 2, -1)
  assert free[-1] > 1.22


def test_gradient_descent_can_only_grow():
  """|w - r g|^2 = |w|^2 + r^2 |g|^2 as g is normal to w (but for the 1e-4 in the norm): never shorter, to rounding."""
  rows = trained(optax.sgd(0.05), 100)[1][1]
  assert (np.diff(rows, axis=0) > -1e-5).all() and rows[-1].mean() > rows[0].mean()


def test_project():
  """By hand; other leaves are the same arrays; twice is once."""
  w = np.random.default_rng(0).standard_normal((3, 3, 4, 5)).astype(np.float32) * 7
  tree = {'a': {MP_KERNEL: jnp.asarray(w), 'gain': jnp.ones(())}, 'kernel': jnp.full((2, 2), 3.0)}
  out = project(tree)
  np.testing.assert_allclose(out['a'][MP_KERNEL], w / (1e-4 + np.sqrt((w**2).mean((0, 1, 2)))), rtol=1e-6)
  assert out['kernel'] is tree['kernel'] and out['a']['gain'] is tree['a']['gain']
  np.testing.assert_allclose(project(out)['a'][MP_KERNEL], out['a'][MP_KERNEL], rtol=2e-4)


def test_the_last_link_is_the_projection():
  """params + updates = project(params + the updates before), as nothing else touches them."""
  plain, rule = optax.sgd(0.3), optax.chain(optax.sgd(0.3), force_norm())
  grads = jax.tree.map(lambda w: jnp.cos(5 * w), PARAMS)
  moved = [optax.apply_updates(PARAMS, r.update(grads, r.init(PARAMS), PARAMS)[0]) for r in (plain, rule)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), project(moved[0]), moved[1])


def test_a_sharding_changes_nothing():
  mesh = make_mesh(data=1, fsdp=jax.device_count())
  where = state_shardings(mesh, PARAMS, min_fsdp_size=1)
  out = jax.jit(project, out_shardings=where)(jax.device_put(PARAMS, where))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out, project(PARAMS))


def test_refused():
  with pytest.raises(ValueError, match="optimiser.forced_norm: got .*'mp_kernel'; allowed"):
    optimiser.adam(10, forced_norm=True).init({'kernel': jnp.ones((2, 2))})
  with pytest.raises(ValueError, match='params: got None; allowed'):
    force_norm().update(PARAMS, optax.EmptyState())
