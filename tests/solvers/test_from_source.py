"""SDEdit: samples begun from a source with noise on it, on Gaussians, on a ring, and from a config."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.methods import Solved
from diffjax.runs.config import defaults, override
from diffjax.runs.experiment import build
from diffjax.runs.generate import key_batch
from diffjax.solvers import grids


def test_the_law_of_an_edit_of_a_gaussian():
  """N(0, v), guide g at level sigma, k = v / (v + sigma^2): SDE mean k g, variance k^2 sigma^2 + k sigma^2; ODE mean
  sqrt(k) g, variance k sigma^2. 2% of 4e4 samples (mean: of its own deviation)."""
  process, v, g, t = schedules.edm(), 0.5, 1.5, 0.8
  target, k = exact.gaussian(np.zeros(1), v), v / (v + t**2)
  ts = grids.begun(process, grids.karras(process, 60), t)
  assert ts[0] == t and (np.diff(ts) < 0).all() and ts[-1] == 0
  solver = solvers.heun(process, ts)
  x = solvers.from_source(process, solver, jax.random.key(0), jnp.full((40000, 1), g))
  own = keys.per_sample(jax.random.key(1), len(x))
  by_sde = jax.jit(lambda x: target.reverse(own, process, x, t, 0.0))(x)  # exact, in one step
  by_ode = solvers.sample(target.denoiser(process), solver, x)
  laws = ((by_sde, k * g, k**2 * t**2 + k * t**2), (by_ode, np.sqrt(k) * g, k * t**2))
  for out, mean, var in laws:
    np.testing.assert_allclose(out.mean(), mean, atol=0.02 * np.sqrt(var))
    np.testing.assert_allclose(out.var(), var, rtol=0.02)


def test_the_more_noise_the_less_of_the_source_is_left():
  """On the ring, begun off a mode: fewer stay in that mode, the further samples are from the guide."""
  process, ring = schedules.edm(), exact.ring8()
  guide = jnp.broadcast_to(1.2 * ring.means[0], (512, 2))
  stay, away = [], []
  for t in (0.5, 1.5, 4.0):
    solver = solvers.ddim(process, grids.begun(process, grids.karras(process, 24), t))
    x = solvers.from_source(process, solver, jax.random.key(0), guide)
    out = np.asarray(solvers.sample(ring.denoiser(process), solver, x))
    nearest = np.argmin(np.linalg.norm(out[:, None] - ring.means, axis=-1), 1)
    stay.append(np.mean(nearest == 0))
    away.append(np.mean(np.linalg.norm(out - guide, axis=-1)))
  assert stay[0] > stay[1] + 0.05 and stay[1] > stay[2] + 0.05 and np.all(np.diff(away) > 0.2)


def config(*overrides):
  small = ['net=mlp', 'net.width=8', 'net.depth=1', 'sampling.steps=4', 'sampling.solver=ddim', *overrides]
  return override(defaults(), [f'--config.{line}' for line in small])


def test_a_config_names_a_source(tmp_path):
  """At a small strength samples are the source: 8 x 8 whole numbers become [-1, 1]; nothing warns of the start."""
  image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.uint8)
  np.savez(tmp_path / 'one.npz', arr_0=image)
  made = build(config(f'sampling.source={tmp_path}/one.npz', 'sampling.strength=0.002'))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    generator = made.generator({'student': made.init(jax.random.key(0))['student']})
  assert isinstance(generator, Solved) and 1 <= generator.nfe <= 4
  np.testing.assert_allclose(generator.times[0], 0.002 * float(made.process.t_max), rtol=1e-5)
  x, _ = generator.start(key_batch(0, np.arange(3)))
  np.testing.assert_allclose(x, np.broadcast_to(image / 127.5 - 1, (3, 8, 8, 1)), atol=0.03)


def test_a_wrong_source_is_refused_in_one_line(tmp_path):
  np.savez(tmp_path / 'two.npz', x=np.zeros((2, 8, 8, 1)))
  roles = {'student': jnp.zeros(1)}
  for lines, told in (
    ((f'sampling.source={tmp_path}/gone.npz',), 'which is not there'),
    ((f'sampling.source={tmp_path}/two.npz',), r'got an array of shape \(2, 8, 8, 1\); allowed: one example'),
    ((f'sampling.source={tmp_path}/two.npz', 'sampling.teleport=5.'), 'with teleport 5; allowed: one of them'),
  ):
    with pytest.raises(InputError, match=told):
      build(config(*lines)).generator(roles)
  with pytest.raises(InputError, match='sampling.strength: t: got 1.9892; allowed: a time between'):
    build(config(f'sampling.source={tmp_path}/two.npz', 'sampling.strength=2.'))
