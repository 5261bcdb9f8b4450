"""Point clouds about their mean: noise of the whole space does, in the subspace, what projected noise does."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance, keys, schedules, solvers
from diffjax.nets.egnn import centred
from diffjax.prediction import as_denoiser
from diffjax.solvers import grids

PROCESS = schedules.vp_linear()
MASK = np.array([1.0, 1, 1, 0])


def read(x, t, cond):
  """A network that reads the subspace alone, and answers beyond it."""
  seen = centred(x, cond['mask'])
  return jnp.tanh(seen + jnp.flip(seen, 1)) + 0.3


def in_subspace(x):
  return np.asarray(centred(x, np.broadcast_to(MASK, x.shape[:2])))


def test_samples_are_those_of_projected_noise():
  """Step by step: x projected under noise of the whole space, and under the noise projected, ancestral in 12 steps."""
  denoise = guidance.centred(as_denoiser(read, PROCESS, 'x0'))
  solver = solvers.ancestral(PROCESS, grids.uniform(PROCESS, 12))
  key = keys.per_sample(jax.random.key(0), 5)
  x = keys.normal(keys.fold(key, 1), jnp.zeros((5, 4, 5)))
  cond = {'mask': jnp.broadcast_to(MASK, (5, 4))}
  got = jax.jit(solvers.sample)(denoise, solver, x, key, cond)
  np.testing.assert_allclose(got, in_subspace(got), atol=1e-6)  # the sample lies in the subspace
  projected = jax.jit(solvers.sample)(denoise, solver, jnp.asarray(in_subspace(x)), key, cond)
  np.testing.assert_allclose(got, projected, atol=2e-5)  # and does not know what the prior was beyond it
  pred = denoise(x, 0.5, cond)
  np.testing.assert_allclose(PROCESS.perturb(pred.x0, pred.eps, 0.5), x, atol=1e-6)
  np.testing.assert_allclose(pred.x0, in_subspace(pred.x0), atol=1e-6)
