"""CFG++ against the paper's update, its identity with guidance of a scale a step, and its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import nets, noise_levels, schedules, solvers
from diffjax.guidance import cfg, cfgpp, cost
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser
from diffjax.solvers import grids, pair_form, sample

X = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
COND = np.arange(4, dtype=np.int32) % 3
PROCESS = schedules.vp_linear()


@pytest.fixture(scope='module')
def denoise():
  """A random network with three classes."""
  net = nets.mlp(width=8, depth=1, classes=3)
  like = jax.eval_shape(net.init, jax.random.key(0), X[:1], np.zeros(1), np.zeros(1, int))
  r = np.random.default_rng(3)
  params = jax.tree.map(lambda leaf: np.float32(0.5 * r.standard_normal(leaf.shape)), like)
  return Denoiser(params, PROCESS, as_kind('v'), 3, net=net)


def both(denoise, x, t):
  return denoise(x, t, COND), denoise(x, t, np.full(4, 3, np.int32))


def test_the_paper_s_update(denoise):
  """x_s = alpha_s [u + lambda (c - u)] + sigma_s eps_u, step by step; a pair-form table of DDIM, Euler or DPM-1."""
  ts = grids.uniform(PROCESS, 5)
  alpha, sigma, _ = (np.float32(part) for part in noise_levels.at(PROCESS, ts))
  for scale in (0.6, Partial(jnp.multiply, jnp.asarray(0.9))):  # a function of t
    x = X
    for i in range(5):
      c, u = both(denoise, x, ts[i])
      w = scale(ts[i]) if callable(scale) else scale
      x = alpha[i + 1] * (u.x0 + w * (c.x0 - u.x0)) + sigma[i + 1] * u.eps
    for base in (solvers.ddim(PROCESS, ts), solvers.exponential_adams(PROCESS, ts, order=1, form='eps')):
      got = sample(cfgpp(denoise, scale), pair_form(base, PROCESS), X, cond=COND)
      np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-5)


def test_one_step_is_guidance_of_a_scale_of_its_own(denoise):
  """lambda / (1 - e^{-h}), h = lam_s - lam_t; into sigma = 0 it is lambda."""
  lam = 0.6
  for t, s in ((0.9, 0.7), (0.6, 0.3), (0.3, 0.25), (0.2, 0.0)):
    level = noise_levels.at(PROCESS, [t, s])[2]
    w = lam / -np.expm1(-(level[1] - level[0]))
    table = solvers.ddim(PROCESS, [t, s])
    got, want = (sample(d, table, X, cond=COND) for d in (cfgpp(denoise, lam), cfg(denoise, w)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  assert w == lam


def test_its_ends(denoise):
  """Scale 0 is the unconditional prediction, bit for bit that of `cfg`; 1 the conditional x0 with the other eps."""
  c, u = both(denoise, X, 0.5)
  for scale, x0 in ((0.0, u.x0), (1.0, c.x0)):
    pred = cfgpp(denoise, scale)(X, 0.5, COND)
    np.testing.assert_allclose(pred.x0, x0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pred.eps, u.eps, rtol=1e-5, atol=1e-6)
  assert cost(cfgpp(denoise, 0.6), 0.5) == 2
  with pytest.raises(ValueError, match='null: got None'):
    cfgpp(denoise.replace(null=None))
  with pytest.raises(ValueError, match='cond: got None'):
    cfgpp(denoise)(X, 0.5)
