"""Rollover budget forcing and SVDD on exact kernels, at 200 evaluations: the medians of the specification."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.methods import solved
from diffjax.steering import best_of, exact_steps, rollover, svdd

PROCESS = schedules.edm(0.01, 20.0)
TARGET = exact.mixture([0.6, 0.35, 0.05], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)
TIMES = np.append(np.linspace(20 ** (1 / 7), 0.05 ** (1 / 7), 10) ** 7, 0.0)
GENERATOR = solved(TARGET.denoiser(PROCESS), exact_steps(TARGET, PROCESS, TIMES), (2,))


def near(x, cond):
  return -jnp.sum((x - jnp.asarray([0.3, 2.9])) ** 2, -1)


@partial(jax.jit, static_argnums=1)
def rewards(made, n):
  return near(made(keys.per_sample(jax.random.key(0), n)), None)


@pytest.mark.slow
def test_equal_budgets():
  """Specified medians: best of 20 -.88, RBF -.001, SVDD -.0003. Required: RBF above best-of-n by .8, SVDD by as much.

  RBF > SVDD is published for rewards that are not smooth; an informative one lets the greedy choice win.
  """
  rbf, value, many = rollover(GENERATOR, near, 200), svdd(GENERATOR, near, 20), best_of(GENERATOR, near, 20)
  assert rbf.nfe == rbf.cost == many.nfe == 200 and value.nfe == 1 + 20 * 9
  medians = [float(np.median(rewards(made, 400))) for made in (many, rbf, value)]
  assert -1.2 < medians[0] < -0.6 and medians[1] > medians[0] + 0.8 and medians[2] > -0.02


def test_any_solver_and_refusals():
  """Steps of a table, of a flow; and what has no steps to draw."""
  flow = schedules.flow()
  made = solved(TARGET.denoiser(flow), solvers.flow_sde(flow, np.linspace(1, 0, 6)), (2,))
  x = jax.jit(lambda made, k: made(k))(rollover(made, near, 20, begin=5), keys.per_sample(jax.random.key(0), 4))
  assert np.isfinite(x).all()
  ode = solved(TARGET.denoiser(flow), solvers.ddim(flow, np.linspace(1, 0, 6)), (2,))
  for make, message in (
    (lambda: svdd(ode, near, 4), 'solver: got one that draws no noise'),
    (lambda: rollover(made, near, 29), 'budget: got 29; allowed: at least 30'),
    (lambda: svdd(best_of(made, near, 2), near, 2), 'generator: got BestOf; allowed'),
  ):
    with pytest.raises(InputError, match=message):
      make()
