"""Point clouds: what is guided turns, moves and permutes with its start and its noise; bad parts are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import data, keys, methods, nets
from diffjax.data.molecules import gyration
from diffjax.errors import InputError
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build
from diffjax.train.ema import constant
from diffjax.train.step import init_state, make_train_step

CONFIG = 'experiments/configs/guidance/eegsde_molecules.py'
TINY = ('net.width=4', 'net.depth=1', 'method.predictor.width=4', 'method.predictor.depth=1')


def made(*changes):
  return build(override(from_file(CONFIG), [f'--config.{change}' for change in changes]))


def filled(roles):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), jnp.float32), roles)


def test_guided_samples_turn_with_their_start_and_their_noise():
  """The ancestral sampler of 5 steps, its noise turned too: to 1e-4. Without guidance the samples are others."""
  experiment = made(*TINY, 'method.scale=3.0')
  roles, process = filled(experiment.roles()), experiment.process
  guided = experiment.generator(roles).denoise
  rng, times = np.random.default_rng(1), np.linspace(0.9, 0.05, 6)
  x, z = np.float32(rng.standard_normal((3, 4, 7))), np.float32(rng.standard_normal((5, 3, 4, 7)))
  cond = {'label': None, 'source': jnp.asarray([[0.7], [0.9], [1.2]])}

  @jax.jit
  def drawn(denoise, x, noise):
    def step(x, row):
      t, s, z = row
      mean, std = process.posterior(x, denoise(x, t, cond).x0, t, s)
      return mean + std * z, None

    return jax.lax.scan(step, x, (jnp.asarray(times[:-1]), jnp.asarray(times[1:]), noise))[0]

  plain = np.asarray(drawn(guided, x, z))
  order = np.array([3, 0, 2, 1])
  turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
  for reflection in (1, -1):
    turned = np.eye(7)
    turned[:3, :3] = turn * reflection
    moved = lambda a, turned=turned: np.float32((a @ turned)[..., order, :])  # noqa: E731
    got = drawn(guided, moved(x), moved(z))
    np.testing.assert_allclose(got, moved(plain), atol=1e-4)
  shifted = x + np.float32([5, -3, 2, 0, 0, 0, 0])  # what is beyond the subspace stays there
  away = drawn(guided, shifted, z) - plain
  np.testing.assert_allclose(away - away.mean(1, keepdims=True), 0, atol=2e-4)
  bare = drawn(made(*TINY, 'method.scale=0.0').generator(roles).denoise, x, z)
  assert np.abs(bare - plain).max() > 0.01


def test_the_predictor_is_not_told_what_it_predicts():
  """Nor does its loss move the student; the property of another cloud is another value of the loss."""
  experiment = made(*TINY)
  roles = filled(experiment.roles())
  phase = experiment.method.phases[1]
  x = data.load('molecules', formulas=('ammonia',), stretch=0.4, source='gyration', n=4).arrays()
  key = keys.per_sample(jax.random.key(0), 4)
  loss = jax.jit(lambda roles, batch: phase.loss(roles, batch, key)[0])
  values = loss(roles, x)
  out = np.sqrt(values)
  other = loss(roles, {**x, 'source': x['source'] + 1})  # (g - c - 1)^2 with the same g
  assert (np.isclose(other, (out - 1) ** 2, rtol=1e-3) | np.isclose(other, (out + 1) ** 2, rtol=1e-3)).all()
  assert np.isfinite(values).all() and phase.role == 'predictor'
  assert experiment.generator(roles).cost == 2 * experiment.generator(roles).nfe


def test_bad_parts_are_refused():
  parts = made(*TINY).parts
  wrong = {
    r'got data of shape \(2,\); allowed: point clouds': dict(shape=(2,)),
    r'loss.given: got \(\); allowed: source': dict(loss_options={}),
  }
  for message, changes in wrong.items():
    with pytest.raises(InputError, match=message):
      methods.equivariant_energy(dataclasses.replace(parts, **changes))
  for message, options in {
    'scale: got -1; allowed': dict(scale=-1),
    "predictor: got 'unet' for": dict(predictor='unet'),
    'predictor: got egnn with wide; allowed': dict(predictor=dict(name='egnn', wide=3)),
  }.items():
    with pytest.raises(InputError, match=message):
      methods.equivariant_energy(parts, **options)
  other = dataclasses.replace(parts, net=nets.uvit(width=8, depth=2, heads=2), loss_options=dict(given=('mask',)))
  with pytest.raises(InputError, match=r"given: got \('mask',\); allowed: .* mask with egnn"):
    methods.equivariant(other)


@pytest.mark.slow
def test_guidance_finds_the_radius_that_is_asked_for():
  """Ammonia of other sizes, 800 steps: MAE of the radius of gyration at most .6 of that of the conditional model."""
  small = ('net.width=16', 'net.depth=2', 'method.predictor.width=16', 'train.steps=800', 'sampling.steps=30',
           'train.optimiser.learning_rate=2e-3')  # fmt: skip
  experiment = made(*small)
  options = dict(formulas=('ammonia',), stretch=0.4, source='gyration')
  seen = data.load('molecules', **options).arrays()
  seen = {name: jnp.asarray(seen[name]) for name in ('x', 'source')}
  decay = (constant(0.995),)
  move = make_train_step(experiment.method, decay)

  def batch(i):
    rows = jax.random.randint(jax.random.fold_in(jax.random.key(7), i), (64,), 0, len(seen['x']))
    return jax.tree.map(lambda leaf: leaf[rows], seen)

  @jax.jit
  def trained(key):
    state = init_state(experiment.method, experiment.init(key), key, batch(0), decay)
    return jax.lax.scan(lambda state, i: (move(state, batch(i), (0, 1))[0], None), state, jnp.arange(800))[0]

  roles = {role: next(iter(kept.values())) for role, kept in trained(jax.random.key(0)).ema.items()}
  asked = data.load('molecules', 'test', n=128, **options).arrays()['source']
  cond, key = {'label': None, 'source': jnp.asarray(asked)}, keys.per_sample(jax.random.key(3), 128)
  errors = []
  for scale in (0.0, 2.0):
    draw = made(*small, f'method.scale={scale}').generator(roles)
    errors.append(np.abs(gyration(np.asarray(jax.jit(lambda draw: draw(key, cond))(draw))) - asked[:, 0]).mean())
  assert errors[1] <= 0.6 * errors[0], errors
