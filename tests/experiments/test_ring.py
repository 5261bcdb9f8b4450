"""The closed-form bench of few-step methods: its figures against known distances, and who moves when."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import keys, solvers
from diffjax.solvers import grids
from diffjax.train.roles import Method, Phase
from experiments import ring as bench


def draws(n=20000, seed=1):
  return np.asarray(bench.ring().sample(keys.per_sample(jax.random.key(seed), n)))


def test_figures_of_the_data_moved_by_known_ways():
  """Data against data at the floor; a shift d costs |d| / sqrt 2 in sw; a tenth of the mass moved, .1."""
  target, x = bench.ring(), draws()
  floor = bench.figures(target, x)
  assert 0.012 < floor.sw < 0.022 and floor.tv < 0.012 and floor.off < 0.001
  x = x[:4000]
  floor = bench.figures(target, x, x)
  shifted = bench.figures(target, x + np.array([0.3, 0.4]), x)
  np.testing.assert_allclose(shifted.sw, 0.5 / 2**0.5, rtol=1e-5)
  moved = x.copy()
  last = np.flatnonzero(np.linalg.norm(x - target.means[7], axis=1) < 0.4)[:400]
  moved[last] = [9.0, -9.0]  # nearest to the last mode: no mass moves, but they are off
  far = bench.figures(target, moved, moved)
  assert far.tv == pytest.approx(floor.tv) and far.off == pytest.approx(floor.off + 0.1)
  moved[last] = target.means[3]
  assert bench.figures(target, moved, x).tv == pytest.approx(0.1, abs=0.02)


def test_the_teacher_has_the_published_distances():
  """DDIM of the closed form on EDM's process, Karras grid: .635 / .174 at one and four steps, off 1 / .052."""
  process, target = bench.edm(), bench.ring()
  x = float(process.t_max) * keys.normal(keys.per_sample(jax.random.key(2), 20000), jnp.zeros((20000, 2)))
  for n, sw, off in ((1, 0.635, 1.0), (4, 0.174, 0.052)):
    ddim = solvers.ddim(process, grids.karras(process, n))
    got = bench.figures(target, solvers.sample(target.denoiser(process), ddim, x))
    assert got.sw == pytest.approx(sw, abs=0.01) and got.off == pytest.approx(off, abs=0.01)


def test_every_phase_moves_at_its_own_steps():
  """One of every step, one of every third: a rate of one on a loss of slope -1 counts them; and labels are there."""

  def counted(role):
    return lambda roles, batch, key: (-jnp.full(batch['cond'].shape, roles[role]), {})

  phases = (
    Phase('student', counted('student'), optax.sgd(1.0)),
    Phase('critic', counted('critic'), optax.sgd(1.0), 3, 1),
  )
  method = Method(phases, init=lambda key: {'student': jnp.zeros(()), 'critic': jnp.zeros(())})
  got = bench.trained(method, bench.ring(), 7, batch=4, decay=None, labelled=True)
  assert (float(got['student']), float(got['critic'])) == (7.0, 2.0)
