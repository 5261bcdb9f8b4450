"""Data as the noise of a stochastic sampler, and translation between two laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.exact import mixture
from diffjax.noise_levels import at
from diffjax.represent import decode, encode, translate
from diffjax.solvers import ddim, ddpm, dpmpp_2m, grids, sample, sde_dpmpp_2m

PROCESS = schedules.cosine()
SOURCE, TARGET = mixture([0.5, 0.5], [[-2.0], [2.0]], [0.1] * 2), mixture([0.5, 0.5], [[-1.5], [2.5]], [0.2] * 2)
N = 1000


def data(n=N):
  return SOURCE.sample(keys.per_sample(jax.random.key(0), n))


def close(a, b):
  return float(np.max(np.abs(a - b)))


@pytest.mark.parametrize('build', [ddpm, sde_dpmpp_2m])
def test_what_is_encoded_is_decoded(build):
  """To 1e-4 in float32, also on a grid with a noisy last step; what the noise cannot reach is of the last noise."""
  x, denoise = data(200), SOURCE.denoiser(PROCESS)
  ts = grids.uniform(PROCESS, 40)
  code = encode(denoise, build(PROCESS, ts), x, jax.random.key(1))
  assert close(decode(denoise, build(PROCESS, ts), code), x) < 1e-4
  sigma = PROCESS.schedule(jnp.asarray(ts[-2]))[1]
  assert np.sqrt(np.mean(code.rest**2)) < 2 * sigma
  above = np.append(ts[:-1], 0.005)
  code = encode(denoise, build(PROCESS, above), x, jax.random.key(1))
  assert close(decode(denoise, build(PROCESS, above), code), x) < 1e-4 and not np.any(code.rest)


def test_the_code_of_data_is_noise():
  """Under the true denoiser the code of draws has mean 0, and the variance by which x_s given x_t exceeds the step's.

  1 + gain^2 E Var[x0 | x_t] / std^2, within one component: gain x0 is what x_s takes of the data. A stranger's has not.
  """
  x, ts = data(), np.append(grids.uniform(PROCESS, 40)[:-1], 0.005)
  solver = ddpm(PROCESS, ts)
  z = np.asarray(encode(SOURCE.denoiser(PROCESS), solver, x, jax.random.key(1)).z)[..., 0]
  alpha, sigma, lam = at(PROCESS, ts)
  left = -np.expm1(-2 * np.diff(lam))
  var = 0.1 * sigma**2 / (0.1 * alpha**2 + sigma**2)
  want = 1 + (alpha[1:] * left) ** 2 * var[:-1] / (sigma[1:] ** 2 * left)
  assert (np.abs(z.mean(0)) < 4.5 * np.sqrt(z.var(0) / N)).all()
  assert np.abs(z.var(0) / want - 1)[25:-1].max() < 4.5 * np.sqrt(2 / N) and want[38] > 2.5
  other = np.asarray(encode(TARGET.denoiser(PROCESS), solver, x, jax.random.key(1)).z)[..., 0]
  assert np.abs(other.mean(0)).max() > 0.25


def test_translation_keeps_what_two_laws_share():
  """100 steps from full noise: correlation and branch of .98, branch means to .05; a fresh draw has none of it."""
  x, solver = data(), ddpm(PROCESS, grids.uniform(PROCESS, 100))
  source, target = SOURCE.denoiser(PROCESS), TARGET.denoiser(PROCESS)
  y = np.asarray(translate(source, target, solver, x, jax.random.key(1)))[:, 0]
  x = np.asarray(x)[:, 0]
  fresh = np.asarray(sample(target, solver, jax.random.normal(jax.random.key(3), (N, 1)), jax.random.key(4)))[:, 0]
  same = np.mean((x > 0) == (y > 0.5))
  assert np.corrcoef(x, y)[0, 1] > 0.98 and same > 0.98 and abs(np.corrcoef(x, fresh)[0, 1]) < 0.15
  assert abs(y[y > 0.5].mean() - 2.5) < 0.05 and abs(y[y <= 0.5].mean() + 1.5) < 0.05


def test_bad_input():
  x, denoise = data(2), SOURCE.denoiser(PROCESS)
  for solver in (ddim(PROCESS, [0.9, 0.5, 0.1]), dpmpp_2m(PROCESS, [0.9, 0.5, 0.1])):
    with pytest.raises(InputError, match='a row without noise'):
      encode(denoise, solver, x, jax.random.key(0))
