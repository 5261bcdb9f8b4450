"""Langevin dynamics over the codes of generators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.exact import gaussian
from diffjax.represent import guided_codes, latent
from diffjax.solvers import ddim, ddpm, grids

N = 2000


def scaled(gain, z):
  return gain * z


def observed(y, r2, x):
  return jnp.sum((x - y) ** 2, -1) / (2 * r2)


def start(n=N, shape=(1,)):
  return keys.normal(keys.per_sample(jax.random.key(0), n), jnp.zeros((n, *shape)))


def test_moments_of_a_linear_generator():
  """Of precision h the variance is 1/(h (1 - step h / 4)), .0646 where .0476 is right; with the test it is right."""
  run = lambda **kw: guided_codes(  # noqa: E731
    Partial(scaled, 2.0), Partial(observed, 1.0, 0.2), start(), jax.random.key(1), step=0.05, steps=80, **kw
  )
  h = 1 + 4 / 0.2
  for out, var in ((run(), 1 / (h * (1 - 0.05 * h / 4))), (run(exact=True), 1 / h)):
    z = np.asarray(out.z)[:, 0]
    assert abs(z.mean() - 2 / 0.2 / h) < 4 * np.sqrt(var / N)
    assert abs(z.var() / var - 1) < 4 * np.sqrt(2 / N)
  assert 0.5 < out.accepted.mean() < 1  # by Metropolis
  assert abs(var * h * 1.3559 - 1.3559) < 1e-9 and np.mean(run(best=True).energy) < np.mean(out.energy)


def test_all_codes_of_a_law_give_one_posterior():
  """The ODE's noise and all noises of a stochastic sampler: x has the law p e^-E, the exact posterior, either way."""
  process, c2, y, r2 = schedules.cosine(), 0.8, 1.0, 0.3
  denoise, ts = gaussian([0.0], c2).denoiser(process), grids.uniform(process, 8)
  energy, n = Partial(observed, y, r2), 600
  for build in (ddim, ddpm):
    generate = latent(denoise, build(process, ts), std=np.sqrt(c2))
    z = generate.prior(keys.per_sample(jax.random.key(0), n), (1,))
    own = np.asarray(generate(jnp.eye(z.shape[1])[..., None]))  # it is linear
    v = np.sum(own**2)  # what the sampler makes of c2 in few steps
    assert abs(v / c2 - 1) < 0.45
    out = guided_codes(generate, energy, z, jax.random.key(1), step=0.3, steps=40, exact=True)
    x = np.asarray(generate(out.z))[:, 0]
    mean, var = v * y / (v + r2), v * r2 / (v + r2)
    assert abs(x.mean() - mean) < 4 * np.sqrt(var / n) and abs(x.var() / var - 1) < 4 * np.sqrt(2 / n)


def test_bad_input():
  with pytest.raises(InputError, match='steps, step: got 0'):
    guided_codes(Partial(scaled, 1.0), Partial(observed, 1.0, 0.2), start(2), jax.random.key(1), steps=0)
