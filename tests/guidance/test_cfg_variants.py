"""Rescaled, projected and zero-init guidance: their formulas, what they share with plain guidance, two Gaussians."""

import functools

import gaussian_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, schedules, solvers
from diffjax.errors import InputError
from diffjax.guidance import apg, cfg, cfg_rescale, cfg_zero, cost
from diffjax.prediction import target
from diffjax.solvers import sample

D = 16  # the ACCEPT figures hold of 64 dimensions; those along e_1, and ratios, of any
COND = jnp.zeros(5, jnp.int32)


def targets(process, d=D):
  """p_c = N(3 e_1, .25 I) by label 0 and, by label -1, p_u = N(0, .25 I + 9 e_1 e_1^T)."""
  var = np.full((2, d), 0.25)
  var[1, 0] += 9
  mean = np.zeros((2, d))
  mean[0, 0] = 3
  return Two(exact.gaussian(mean[0], var[0]), exact.gaussian(mean[1], var[1]), process)


class Two(exact.PyTree):
  """The exact denoiser of one Gaussian with the condition and of another without."""

  given: exact.Mixture
  free: exact.Mixture
  process: exact.Process
  null: int = exact.struct.field(pytree_node=False, default=-1)

  def __call__(self, x, t, cond=None, memory=None):
    both = (law.predict(x, *self.process.schedule(jnp.asarray(t))) for law in (self.given, self.free))
    return jax.tree.map(lambda c, u: jnp.where((cond == -1)[:, None], u, c), *both)


def pair(denoise, x, t):
  return denoise(x, t, COND), denoise(x, t, COND - 1)


X = jnp.asarray(np.random.default_rng(0).standard_normal((5, D)), jnp.float32)
T = jnp.asarray([0.2, 0.4, 0.5, 0.7, 0.9])
MAKE = dict(
  cfg_rescale=lambda d, w: cfg_rescale(d, w), apg=lambda d, w: apg(d, w), cfg_zero=lambda d, w: cfg_zero(d, w)
)


@pytest.mark.parametrize('name', MAKE)
def test_scale_one_is_the_conditional_model_and_pairs_are_consistent(name):
  """Bit for bit that of `cfg`; other scales leave alpha x0 + sigma eps = x. One batched call, of cost 2."""
  denoise = targets(schedules.flow())
  plain, got, far = jax.jit(
    lambda d: (cfg(d, 1.0)(X, T, COND), MAKE[name](d, 1.0)(X, T, COND), MAKE[name](d, 3.0)(X, T, COND))
  )(denoise)
  for a, b in ((got.x0, plain.x0), (got.eps, plain.eps)):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_allclose(denoise.process.perturb(far.x0, far.eps, T), X, atol=2e-5)
  assert not np.allclose(far.x0, got.x0, atol=1e-3)
  assert cost(MAKE[name](denoise, 3.0), 0.5) == 2


def test_rescaling():
  """k (1 + amount (std(c) / std(k) - 1)) of a kind: amount 1 has the deviation of the conditional output, to 2e-6."""
  process = schedules.cosine()
  denoise = targets(process)

  @functools.partial(jax.jit, static_argnums=1)
  def outputs(amount, kind):
    preds = (*pair(denoise, X, T), cfg_rescale(denoise, 4.0, amount, kind)(X, T, COND))
    return [target(process, kind, *pred[:2], T) for pred in preds]

  for kind, amount in (('v', 0.0), ('v', 0.7), ('v', 1.0), ('x0', 0.7)):
    c, u, got = (np.asarray(out) for out in outputs(amount, kind))
    k = u + 4 * (c - u)
    want = amount * k * (c.std(1) / k.std(1))[:, None] + (1 - amount) * k
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    if amount == 1:
      np.testing.assert_allclose(got.std(1), c.std(1), rtol=2e-6)


def test_projection_by_hand():
  """Two evaluations of the paper's algorithm in float64; along 1, radius inf, momentum 0 is `cfg`, to 1e-6."""
  denoise = targets(schedules.edm())
  made = apg(denoise, 5.0, 0.3, 0.5, -0.75)
  m, memory = 0.0, None
  for t in (2.0, 1.0):
    c, u = (np.asarray(pred.x0, np.float64) for pred in pair(denoise, X, t))
    m = c - u - 0.75 * m
    d = m * np.minimum(1, 0.5 / np.linalg.norm(m, axis=1, keepdims=True))
    onto = (d * c).sum(1, keepdims=True) / (c**2).sum(1, keepdims=True) * c
    pred = made(X, t, COND, memory)
    memory = pred.aux['memory']
    np.testing.assert_allclose(pred.x0, c + 4 * (d - onto + 0.3 * onto), rtol=1e-5, atol=1e-5)
  same, plain = apg(denoise, 5.0, 1.0, np.inf, 0.0)(X, 1.0, COND), cfg(denoise, 5.0)(X, 1.0, COND)
  np.testing.assert_allclose(same.x0, plain.x0, rtol=1e-6, atol=1e-6)
  line = laws.several()
  x = X[:, :1]
  np.testing.assert_allclose(apg(line, 7.0)(x, 1.0, COND).x0, cfg(line, 1.0)(x, 1.0, COND).x0, atol=2e-6)


def test_projection_keeps_the_spread_that_guidance_takes():
  """Scale 5, 64 Euler steps, d = 64: deviation along e_1 at least .15 of .468, where `cfg` has none; norm no larger."""
  denoise = targets(schedules.edm(), 64)
  ts = np.append(np.geomspace(80, 0.002, 64), 0.0)
  z = np.random.default_rng(1).standard_normal((400, 64)).astype(np.float32)
  table = solvers.ddim(denoise.process, ts)

  def run(make):
    x = np.asarray(sample(make(denoise), table, 80 * z, cond=jnp.zeros(400, jnp.int32)))
    return x[:, 0].std(), np.linalg.norm(x, axis=1).mean()

  plain, free = run(lambda d: cfg(d, 1.0)), run(lambda d: cfg(d, 5.0))
  ours = run(lambda d: apg(d, 5.0))
  assert ours[0] >= 0.15 > 0.02 > free[0] and ours[1] <= plain[1] < free[1] + 0.2


def test_velocities_are_brought_to_scale():
  """s u + scale (c - s u) of velocities; in one dimension the conditional one, whatever the scale."""
  process = schedules.flow()
  denoise = targets(process)
  c, u = (np.asarray(process.velocity(*pred[:2], T), np.float64) for pred in pair(denoise, X, T))
  s = (c * u).sum(1, keepdims=True) / (u**2).sum(1, keepdims=True)
  pred = cfg_zero(denoise, 3.0)(X, T, COND)
  np.testing.assert_allclose(process.velocity(pred.x0, pred.eps, T), s * u + 3 * (c - s * u), rtol=1e-4, atol=1e-4)
  line, x = targets(process, 1), X[:, :1]
  np.testing.assert_allclose(cfg_zero(line, 9.0)(x, T, COND).x0, cfg(line, 1.0)(x, T, COND).x0, rtol=2e-3)


def test_zero_guidance_keeps_more_spread_and_stands_still_at_first():
  """Flow, 50 Euler steps, scale 3: deviation along e_1 at least 3 times that of `cfg`; still, x and cost stay."""
  denoise = targets(schedules.flow())
  table = solvers.ddim(denoise.process, np.linspace(1, 0, 51))
  z = np.random.default_rng(1).standard_normal((400, D)).astype(np.float32)

  def run(make):
    return np.asarray(sample(make(denoise), table, z, cond=jnp.zeros(400, jnp.int32)))[:, 0].std()

  assert run(lambda d: cfg_zero(d, 3.0, 0.03)) >= 3 * run(lambda d: cfg(d, 3.0))
  made = cfg_zero(denoise, 3.0, 0.1)
  for t in (0.95, jnp.full(5, 0.95)):
    pred = made(X, t, COND)
    np.testing.assert_allclose(denoise.process.velocity(pred.x0, pred.eps, t), 0, atol=1e-6)
    np.testing.assert_allclose(denoise.process.perturb(pred.x0, pred.eps, 0.6), X, atol=1e-5)
  np.testing.assert_array_equal(made(X, 0.8, COND).x0, cfg_zero(denoise, 3.0)(X, 0.8, COND).x0)
  assert [cost(made, t) for t in (0.95, 0.89, 0.1)] == [0, 2, 2]


def test_refusals():
  denoise = targets(schedules.flow())
  for make, message in (
    (lambda: apg(denoise, 2.0, radius=0.0), 'radius: got 0.0; allowed: a positive number'),
    (lambda: apg(denoise, 2.0, momentum=1.0), 'momentum: got 1.0; allowed: between -1 and 1'),
    (lambda: cfg_zero(denoise, 2.0, 1.0), 'still: got 1.0; allowed: a share'),
    (lambda: cfg_rescale(denoise, 2.0, kind='w'), "kind: got 'w'"),
    (lambda: apg(denoise, 2.0)(X, 0.5), 'cond: got None; allowed'),
  ):
    with pytest.raises(InputError, match=message):
      make()
