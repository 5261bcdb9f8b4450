"""The derivative of samples in x_t, and which law explains a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.exact import gaussian, mixture
from diffjax.represent import candidates, explained, gaussian_response, response
from diffjax.solvers import ddpm, dpmpp_2m, grids, sample

PROCESS = schedules.vp_linear()
THREE = mixture([0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)


def rest(t, n):
  return t * np.linspace(1, 0, n + 1) ** 2


def test_the_derivative_of_gaussian_samples(x64):
  """xi_k of 8 variances from .01 to 10, to 2e-3 by 200 steps of second order; the effect rises with noise."""
  var = np.geomspace(0.01, 10, 8)
  denoise, effect = gaussian(np.zeros(8), var).denoiser(PROCESS), []
  x = np.random.default_rng(0).standard_normal((1, 8))
  for t in (0.2, 0.5, 0.9):
    errors = []
    want = gaussian_response(PROCESS, var, t)
    for n in (100, 200):
      solver = dpmpp_2m(PROCESS, rest(t, n))
      _, moved = response(denoise, solver, x, np.ones((1, 8)))
      errors.append(np.abs(moved[0] / want - 1).max())
    assert errors[1] < 2e-3 and errors[1] < 0.4 * errors[0]
    effect.append(float(np.sum(want**2) * PROCESS.schedule(t)[1] ** 2))
  assert np.all(np.diff(effect) > 0)


def test_early_kicks_move_more_samples_to_another_mode():
  """A kick of sigma_t / 2 changes the final mode the more often the noisier x_t, and never at the end."""
  n, shares = 1500, []
  x0 = THREE.sample(keys.per_sample(jax.random.key(0), n))
  z, kick = (jax.random.normal(jax.random.key(i), (n, 2)) for i in (1, 2))
  mode = lambda x: np.argmin(np.sum((np.asarray(x)[:, None] - np.asarray(THREE.means)) ** 2, -1), 1)  # noqa: E731
  for t in (0.05, 0.2, 0.35, 0.5, 0.7):
    solver = dpmpp_2m(PROCESS, rest(t, 20))
    x, sigma = PROCESS.perturb(x0, z, t), PROCESS.schedule(jnp.asarray(t))[1]
    ends = [mode(sample(THREE.denoiser(PROCESS), solver, x + size * sigma * kick)) for size in (0.0, 0.5)]
    shares.append(np.mean(ends[0] != ends[1]))
  assert shares[0] == 0 and np.all(np.diff(shares) > -0.04) and shares[-1] > 0.15


@pytest.mark.slow
def test_the_law_itself_explains_a_network():
  """The true mixture explains its denoiser wholly and best, of laws fitted to 600 of its draws."""
  data = THREE.sample(keys.per_sample(jax.random.key(0), 600))
  laws = candidates(data, rank=1, parts=3) | {'true': THREE}
  held = THREE.sample(keys.per_sample(jax.random.key(1), 300))
  x = PROCESS.perturb(held, jax.random.normal(jax.random.key(2), held.shape), 0.1)
  found = explained(THREE.denoiser(PROCESS), laws, x, 0.1)
  assert found.best == 'true' and found.share['true'] == pytest.approx(1, abs=1e-6)
  order = [found.share[name] for name in ('mixture', 'Gaussian', 'isotropic', 'rank')]
  assert order[0] > 0.99 and order == sorted(order, reverse=True)
  assert set(candidates(data)) == {'isotropic', 'Gaussian', 'data'}
  # of few examples seen through no noise at all, the law of the examples is far from that of the network
  few = candidates(np.asarray(data)[:24])
  assert explained(THREE.denoiser(PROCESS), few, x, 0.1).share['data'] < found.share['data'] < 1


def test_bad_input():
  with pytest.raises(InputError, match='draws noise'):
    response(THREE.denoiser(PROCESS), ddpm(PROCESS, grids.uniform(PROCESS, 2)), np.zeros((1, 2)), np.ones((1, 2)))
  with pytest.raises(InputError, match='others: got 1'):
    explained(THREE.denoiser(PROCESS), {'a': THREE}, np.zeros((1, 2)), 0.5)
