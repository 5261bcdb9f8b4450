"""The rows of steering in the property table: two particles, two steps, a quadratic reward."""

import jax.numpy as jnp
import numpy as np
from entries import Entry, denoiser

from diffjax import methods, solvers, steering

TIMES = np.array([0.9, 0.5, 0.1])


def near(x, cond):
  return -jnp.sum(x.astype(jnp.float32) ** 2, -1)


def twisting(denoise):
  return steering.twist(denoise, near)


def particles(make, around=lambda denoise: denoise):
  """make(solver, value): a wrapper of two particles a sample, asked with x, keys and labels twice."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    solver = make(solvers.ancestral(denoise.process, TIMES), 0.3 + 0.2 * seed)
    return around(denoise), solver

  return Entry(numbers, run_particles, reverse=False)


def run_particles(numbers, x, cond, key):
  denoise, solver = numbers
  x, cond = steering.spread((x, cond), 2)
  return solvers.sample(denoise, solver, x, steering.particle_keys(key, 2), cond)


def search(make):
  """make(generator, value): a generator that searches over another."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    solver = solvers.ancestral(denoise.process, TIMES)
    law = tuple(jnp.asarray(v, jnp.float32) for v in (0.9, 0.0, 0.0))
    return make(methods.Solved(denoise, solver, law, (2,)), 0.3 + 0.2 * seed)

  return Entry(numbers, lambda made, x, cond, key: made(key, cond), reverse=False, reads_x=False)


METHODS = {
  'best_of': search(lambda generator, v: steering.best_of(generator, near, 2)),
  'feynman_kac': particles(lambda solver, v: steering.feynman_kac(solver, near, 2, scale=v)),
  'find': search(lambda generator, v: steering.find(generator, near, 1, batch=2, rate=v)),
  'particles': particles(lambda solver, v: steering.particles(solver, 2, threshold=v)),
  'paths': search(lambda generator, v: steering.paths(generator, near, 1, branches=2, first=1)),
  'rollover': search(lambda generator, v: steering.rollover(generator, near, 4, begin=2)),
  'svdd': search(lambda generator, v: steering.svdd(generator, near, 2)),
  'tree_sampling': search(lambda generator, v: steering.tree_sampling(generator, near, 2, scale=v)),
  'tree_search': search(lambda generator, v: steering.tree_search(generator, near, 2, explore=v)),
  'twisted': particles(lambda solver, v: steering.twisted(solver, near, 2, threshold=v), twisting),
  'zero_order': search(lambda generator, v: steering.zero_order(generator, near, 1, neighbours=2, likeness=v)),
}
HELPERS = {'Ensemble', 'exact_steps', 'gaussian_looks', 'linear_likelihood', 'particle_keys', 'spread', 'twist'}
GROUPS = {'steering': (METHODS, set(steering.__all__) - HELPERS)}
