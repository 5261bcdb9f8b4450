"""SINE of three Gaussians: their variances multiplied with the weights as exponents, above the gate and below."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, guidance, schedules, solvers
from diffjax.errors import InputError
from diffjax.guidance import cost
from diffjax.guidance.sine import sine
from diffjax.prediction import Pred
from diffjax.pytree import PyTree
from diffjax.solvers import grids

EDM = schedules.edm()
V_U, V_C, V_FIT = 1.25, 0.25, 0.6


class Pair(PyTree):
  """Two Gaussians about 0: label 0 has the variance V_C, label 1, which means none, V_U."""

  process: Any = EDM
  null: Any = 1

  def __call__(self, x, t, cond=None, memory=None):
    v = jnp.where(cond == 0, V_C, V_U)[:, None]
    sigma = jnp.broadcast_to(self.process.schedule(jnp.asarray(t))[1], (len(x),))[:, None]
    return Pred(v / (v + sigma**2) * x, sigma / (v + sigma**2) * x)


FIT = exact.gaussian(np.zeros(1), np.full(1, V_FIT)).denoiser(EDM)


class Fit(PyTree):
  """The model of the image, whose label is 5."""

  process: Any = EDM

  def __call__(self, x, t, cond=None, memory=None):
    return FIT(jnp.where(cond[:, None] == 5, x, jnp.nan), t)


@pytest.mark.parametrize('until', [0.0, 0.7])
def test_variances_multiply(until, x64):
  """prod v_i^{w_i} from sigma = inf to the gate, from there the exponents of plain guidance: within 3%."""
  w, nu = 1.5, 0.4
  guided = sine(Pair(), Fit(), jnp.asarray(5), w, nu, until)
  ts = grids.karras(EDM, 64)
  solver = solvers.heun(EDM, ts)
  x = jnp.asarray([[80.0], [40.0]])
  got = jax.jit(solvers.sample)(guided, solver, x, None, jnp.zeros(2, jnp.int32))
  v, above, below = np.array([V_U, V_C, V_FIT]), np.array([1 - w, w * (1 - nu), w * nu]), np.array([1 - w, w, 0])
  want = np.prod((v + until**2) ** above) * np.prod((v / (v + until**2)) ** below)
  if until == 0:
    assert np.isclose(want, np.prod(v**above))
  std = np.asarray(got)[:, 0] / np.asarray(x)[:, 0] * 80  # the flow is linear, from N(0, 80^2)
  np.testing.assert_allclose(std**2, want, rtol=0.03)
  assert [cost(guided, t) for t in (until + 0.1, until)] == [3, 2]


def test_its_ends_are_plain_guidance_and_the_base():
  """Share 0, or below the gate: guidance; scale 1 the conditional model, bit for bit; share 1 the image's."""
  x, cond = jnp.asarray([[0.4], [-1.3]]), jnp.zeros(2, jnp.int32)
  own = jnp.asarray(5)
  run = jax.jit(lambda made, t: made(x, t, cond))
  cfg = run(guidance.cfg(Pair(), 3.0), 0.8)
  for made in (sine(Pair(), Fit(), own, 3.0, 0.0, 0.1), sine(Pair(), Fit(), own, 3.0, 0.7, 0.9)):
    np.testing.assert_allclose(run(made, 0.8).x0, cfg.x0, rtol=1e-5)
  np.testing.assert_array_equal(run(sine(Pair(), Fit(), own, 1.0, 0.0, 0.1), 0.8).x0, Pair()(x, 0.8, cond).x0)
  image = run(sine(Pair(), Fit(), own, 1.0, 1.0, 0.1), jnp.full(2, 0.8))
  np.testing.assert_allclose(image.x0, FIT(x, 0.8).x0, rtol=1e-5)


def test_bad_input_is_refused():
  with pytest.raises(InputError, match=r'share: got 1.2; allowed: 0 to 1'):
    sine(Pair(), Fit(), jnp.asarray(5), 3.0, 1.2)
  with pytest.raises(InputError, match='cond: got None'):
    sine(Pair(), Fit(), jnp.asarray(5))(jnp.ones((2, 1)), 0.5)
