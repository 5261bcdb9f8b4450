"""TB-GM3 of the guidance notes, tilted by a linear reward: what every particle method here is measured on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact, keys, schedules
from diffjax.solvers import sample
from diffjax.steering import exact_steps, particle_keys

MEANS = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]])
SLOPE = np.array([0.4, 1.2])
PROCESS = schedules.edm(0.01, 20.0)
GM3 = exact.mixture([0.5, 0.3, 0.2], MEANS, [0.25] * 3)
TILTED = GM3.tilt(SLOPE)[0]  # weights .0458, .1360, .8182
DENOISE = GM3.denoiser(PROCESS)


def edm_grid(points=32):
  """EDM's times from 20 to .01, then 0."""
  ramp = np.linspace(20 ** (1 / 7), 0.01 ** (1 / 7), points) ** 7
  return np.append(ramp, 0.0)


STEPS = exact_steps(GM3, PROCESS, edm_grid())


def linear(x, cond):
  return x @ jnp.asarray(SLOPE, x.dtype)


@partial(jax.jit, static_argnums=(2, 3))
def run(denoise, solver, runs, count, seed=0):
  """What `solver` of so many particles returns in independent runs."""
  own = particle_keys(keys.per_sample(jax.random.key(seed), runs), count)
  begin, own = keys.split(own, 2)
  x = denoise.process.prior(begin, jax.ShapeDtypeStruct((runs * count, 2), jnp.float32))
  return sample(denoise, solver, x, own)


def occupancy(x, weights=None, means=None):
  """The weight (..., 3) of what lies nearest to each component's mean; x (..., K, 2)."""
  means = np.asarray(TILTED.means if means is None else means)
  x = np.asarray(x)
  near = np.argmin(((x[..., None, :] - means) ** 2).sum(-1), -1)
  weights = np.full(x.shape[:-1], 1 / x.shape[-2]) if weights is None else np.asarray(weights)
  return np.stack([(weights * (near == k)).sum(-1) for k in range(3)], -1)


def truth(target=TILTED, n=200_000):
  """The exact occupancy, by drawing."""
  draws = jax.jit(lambda key: target.sample(keys.per_sample(key, n)))(jax.random.key(99))
  return occupancy(draws, means=target.means)


def distance(got, want):
  return np.abs(got - want).sum(-1) / 2
