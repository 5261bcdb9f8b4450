"""Searches over noise: the closed form of a maximum, and budgets that are what was asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.methods import solved
from diffjax.prediction import as_denoiser
from diffjax.solvers import grids
from diffjax.steering import best_of, paths, zero_order

PROCESS = schedules.edm(0.01, 20.0)
NORMAL = exact.gaussian([0.0, 0.0], [1.0, 1.0])


def first(x, cond):
  return x[:, 0]


def generator(steps=8, build=solvers.ddim, denoise=None):
  return solved(denoise or NORMAL.denoiser(PROCESS), build(PROCESS, grids.karras(PROCESS, steps)), (2,))


def draw(made, n, seed=0):
  return np.asarray(jax.jit(lambda g, k: g(k))(made, keys.per_sample(jax.random.key(seed), n)))


def straight(x, t, cond):
  return x / (1 + t[:, None] ** 2)


def counted(generator):
  """The generator with a denoiser that counts the rows it is asked of, and the count."""
  asked = []

  def count(x, t, cond):
    jax.debug.callback(lambda n: asked.append(int(n)), jnp.asarray(len(x)))
    return straight(x, t, cond)

  return generator.replace(denoise=as_denoiser(count, PROCESS)), asked


def test_best_of_is_the_maximum():
  """E max of N standard normal draws: .5642, 1.4236 for 2 and 8; the law of one step of an exact ODE, 1 %."""
  exactly = generator(1, denoise=as_denoiser(lambda x, t, c: x / t[:, None], PROCESS))
  for count, want in ((2, 0.5642), (8, 1.4236)):
    made = best_of(exactly, first, count)
    assert draw(made, 100000)[:, 0].mean() == pytest.approx(want, rel=0.01) and made.nfe == count


@pytest.mark.slow
def test_searches_improve_and_spend_what_they_say():
  """Every round at least as good; over rounds strictly; evaluations counted as they run."""
  gen = generator()
  own = keys.per_sample(jax.random.key(1), 400)
  search = zero_order(gen, first, 6, neighbours=4)
  x, record = jax.jit(lambda s: s.history(own))(search)
  assert (np.diff(record, axis=0) >= 0).all() and (np.diff(np.mean(record, 1)) > 0.02).all()
  np.testing.assert_array_equal(x[:, 0], record[-1])
  for make, want in (
    (lambda g: best_of(g, first, 3), 3 * 8),
    (lambda g: zero_order(g, first, 2, neighbours=3), 6 * 8),
    (lambda g: paths(g, first, 2, branches=3, first=3, up=1, down=3), 2 * 3 + 6 * (3 + 3 + 2)),
  ):
    told, asked = counted(gen)
    made = make(told)
    draw(made, 1)
    jax.effects_barrier()
    assert sum(asked) == made.nfe == made.cost == want


def test_paths_find_more_than_their_beginning():
  """Mean reward of a normal law: above the best of as many samples as it keeps, 1.03 of 4."""
  made = paths(generator(), first, 4, branches=4, first=2, up=1, down=2)
  assert draw(made, 500)[:, 0].mean() > 1.3


def test_refusals():
  gen = generator()

  line = generator(1, denoise=as_denoiser(straight, PROCESS)).replace(shape=(1,))

  class Other:
    nfe = 1

  for make, message in (
    (lambda: best_of(gen, first, 0), 'count: got 0; allowed'),
    (lambda: zero_order(Other(), first, 2), 'generator: got Other, which does not show'),
    (lambda: zero_order(gen, first, 2, likeness=1.0), 'likeness: got 1.0; allowed'),
    (lambda: draw(zero_order(line, first, 2), 2), 'generator: got samples of one number'),
    (lambda: paths(Other(), first, 2), 'generator: got Other; allowed'),
    (lambda: paths(gen, first, 2, up=2, down=2), 'up: got 2; allowed: below down, 2'),
  ):
    with pytest.raises(InputError, match=message):
      make()


def nowhere(x, cond):
  return jnp.full(len(x), jnp.nan)


def test_rewards_that_are_not_numbers_give_nan():
  assert np.isnan(draw(best_of(generator(1), nowhere, 2), 2)).all()
