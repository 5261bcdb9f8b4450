"""The rows of posterior sampling in the property table."""

import jax.numpy as jnp
import numpy as np
from entries import Entry, denoiser

from diffjax import inverse, solvers

ROW = inverse.matrix((2,), [[1.0, 0.5]])
UNSEEN = inverse.unseen(ROW, inverse.gaussian(0.5))
SEEN = inverse.observation(ROW, [[0.3]], inverse.gaussian(0.5))
TIMES = np.linspace(0.9, 0.1, 3)


def transform(make):
  """make(denoise, observation, value), told in the condition what was seen of each sample."""

  def run(numbers, x, cond, key):
    denoise, value = numbers
    told = {'label': cond, 'observed': jnp.stack([0.3 * cond - 0.1], 1).astype(x.dtype)}
    return make(denoise, UNSEEN, value)(x, 0.5, told)[:2]

  return Entry(lambda seed, dtype: (denoiser(seed, dtype), jnp.asarray(0.3 + 0.2 * seed)), run)


def solver(make):
  """make(process): a solver."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    return denoise, make(denoise.process)

  return Entry(numbers, run_solver)


def run_solver(numbers, x, cond, key):
  return solvers.sample(*numbers, x, key, cond)


def run_active(numbers, x, cond, key):
  denoise, table = numbers
  return inverse.active(denoise, table, x, key, picks=1, particles=2, cond=cond).x


METHODS = {
  'active': Entry(solver(lambda process: solvers.ddim(process, TIMES)).numbers, run_active),
  'afdps': transform(lambda denoise, seen, v: inverse.afdps(denoise, seen, noise=v)),
  'daps': solver(lambda process: inverse.daps(process, TIMES, SEEN)),
  'dps': transform(inverse.dps),
  'flowchef': transform(inverse.flowchef),
  'flowdps': transform(inverse.flowdps),
  'flowdps_steps': solver(lambda process: inverse.flowdps_steps(process, TIMES)),
  'pigdm': transform(lambda denoise, seen, v: inverse.pigdm(denoise, seen, v, covariance='exact')),
  'proximal': transform(inverse.proximal),
  'replacement': solver(lambda process: inverse.replacement(solvers.ddim(process, TIMES), process, SEEN)),
}  # fmt: skip
OPERATORS = {'blur', 'compose', 'downsample', 'fourier', 'grey', 'linear', 'mask', 'matrix', 'projection'}
SEEING = {'Looked', 'Observation', 'Operator', 'gaussian', 'observation', 'observe', 'poisson', 'unseen'}
HELPERS = {'afdps_start', 'disagreement', 'dps_scale'} | OPERATORS | SEEING
GROUPS = {'inverse': (METHODS, set(inverse.__all__) - HELPERS)}
