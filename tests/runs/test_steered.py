"""The door of steering: what a config names is laid over its generator, or refused in one line before compiling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, methods, rewards, schedules, solvers
from diffjax.exact import ring8
from diffjax.runs import steered
from diffjax.runs.config import ConfigDict, ConfigError, checked
from diffjax.runs.experiment import build
from diffjax.solvers import grids

NEAR = dict(name='near', point=(2.0, 0.0))


def config(**sampling):
  return checked(ConfigDict(dict(
    data=dict(name='ring8', shape=(2,), classes=0), process=dict(name='vp_linear'),
    net=dict(name='mlp', width=4, depth=1),
    sampling=dict(solver=dict(name='ancestral'), grid=dict(name='uniform'), steps=4, batch=8) | sampling,
  )))  # fmt: skip


def generator(solver):
  process = schedules.vp_linear()
  return methods.solved(ring8().denoiser(process), solver(process, grids.uniform(process, 12)), (2,))


METHODS = {
  'feynman_kac': (dict(particles=8, scale=2.0), 96),
  'twisted': (dict(particles=4), 48),
  'best_of': (dict(count=8), 96),
  'zero_order': (dict(rounds=3), 144),
  'paths': (dict(width=2, branches=2), 84),
  'svdd': (dict(count=4), 45),
  'rollover': (dict(budget=48, begin=8), 48),
  'tree_sampling': (dict(rollouts=12, scale=2.0), 144),
  'tree_search': (dict(rollouts=12), 144),
  'find': (dict(updates=30, batch=8), 2892),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', METHODS)
def test_every_name_follows_the_reward(name):
  """Reward -|x - (2, 0)|^2 on the ring: its mean over the ring is -8; every method is above -6."""
  options, nfe = METHODS[name]
  sampling = config(reward=NEAR, steering=dict(name=name, **options)).sampling
  solver = solvers.ddim if name in ('zero_order', 'find') else solvers.ancestral  # where x begins decides
  made = steered.steered(sampling, generator(solver), build(config()).parts)
  x = jax.jit(lambda made, own: made(own))(made, keys.per_sample(jax.random.key(0), 200))
  assert made.nfe == nfe and x.shape == (200, 2)
  assert float(jnp.mean(rewards.near((2.0, 0.0))(x, None))) > -6


def test_an_experiment_draws_by_it():
  """A config's own generator: so many evaluations, finite samples; without steering the one it was."""
  experiment = build(config(reward=NEAR, steering=dict(name='feynman_kac', particles=3)))
  roles = experiment.init(jax.random.key(0))
  made = experiment.generator(roles)
  assert made.nfe == made.cost == 12 and np.isfinite(made(keys.per_sample(jax.random.key(0), 2))).all()
  assert isinstance(build(config()).generator(roles), methods.Solved)


@pytest.mark.parametrize(
  'sampling, message',
  [
    (dict(steering=dict(name='feynman')), "config.sampling.steering.name: there is no 'feynman'"),
    (dict(steering='feynman_kac'), 'config.sampling.reward: got none with feynman_kac; allowed'),
    (dict(reward=NEAR), 'config.sampling.reward: got near without config.sampling.steering'),
    (dict(reward='far', steering='svdd'), "config.sampling.reward: reward: got 'far'; allowed"),
    (dict(reward='digit', steering='best_of'), r'config.sampling.reward: reward: got images of shape \(2,\)'),
    (dict(reward=NEAR, steering=dict(name='feynman_kac', particle=2)), "there is no 'particle', did you mean"),
    (
      dict(reward=NEAR, steering='feynman_kac', solver=dict(name='ddim')),
      'config.sampling.steering: solver: got one that draws no noise',
    ),
  ],
)
def test_refused_before_compiling(sampling, message):
  with pytest.raises(ConfigError, match=message):
    build(config(**sampling))


def test_more_particles_than_memory(monkeypatch):
  """Estimated from the program's arrays, in one line."""
  experiment = build(config(reward=NEAR, steering=dict(name='feynman_kac', particles=1000)))
  monkeypatch.setattr(steered, '_memory', lambda: 1e5)
  with pytest.raises(ConfigError, match='of which a batch of 8 samples needs at least 0.0 GB; allowed: 0.0 GB'):
    experiment.generator(experiment.init(jax.random.key(0)))
