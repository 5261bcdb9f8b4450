"""Marginals and conditionals of a Gaussian of three modalities: its exact joint denoiser against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from diffjax import guidance, keys, schedules, solvers
from diffjax.exact import gaussian, gaussian_flow
from diffjax.guidance.modes import clean, conditional, joint, marginalised
from diffjax.kinds import as_kind
from diffjax.nets import unidiffuser
from diffjax.prediction import Denoiser, Pred, apply_net, target
from diffjax.solvers import grids

AT = {'a': slice(0, 2), 'b': slice(2, 3), 'c': slice(3, 5)}
R = np.random.default_rng(0)
MEAN = R.standard_normal(5)
ROOT = R.standard_normal((5, 5))
COV = ROOT @ ROOT.T / 5 + 0.1 * np.eye(5)
FLOW = schedules.flow()  # alpha(t_max) = 0: noise there says nothing, exactly
N = 6


class Exact(struct.PyTreeNode):
  """x0 = m + C A (A C A + S^2)^-1 (z - A m), eps = S (A C A + S^2)^-1 (z - A m); A, S diagonal, a time a modality."""

  process: object
  mean: jax.Array
  cov: jax.Array

  def __call__(self, x, t, cond=None, memory=None):
    t = t if isinstance(t, dict) else dict.fromkeys(x, t)
    size = x['a'].shape[0]
    times = jnp.concatenate([jnp.broadcast_to(jnp.reshape(t[k], (-1, 1)), (size, x[k].shape[1])) for k in AT], 1)
    alpha, sigma = self.process.schedule(times)
    z = jnp.concatenate([x[k] for k in AT], 1) - alpha * self.mean
    noisy = alpha[:, :, None] * self.cov * alpha[:, None] + jnp.eye(5) * sigma[:, None] ** 2
    w = jnp.linalg.solve(noisy, z[..., None])[..., 0]
    x0, eps = self.mean + jnp.einsum('ij,bj->bi', self.cov, alpha * w), sigma * w
    return Pred(*({k: out[:, at] for k, at in AT.items()} for out in (x0, eps)))


def exact(cov=COV):
  return Exact(FLOW, jnp.asarray(MEAN, jnp.float32), jnp.asarray(cov, jnp.float32))


def draws(seed):
  r = np.random.default_rng(seed)
  return {k: np.float32(r.standard_normal((N, at.stop - at.start))) for k, at in AT.items()}


def law(wanted, known, values):
  """Mean (N, d) and covariance of the wanted entries given the known ones, (N, k)."""
  gain = np.linalg.solve(COV[np.ix_(known, known)], COV[np.ix_(known, wanted)]).T
  mean = MEAN[wanted] + (values - MEAN[known]) @ gain.T
  return mean, COV[np.ix_(wanted, wanted)] - gain @ COV[np.ix_(known, wanted)]


def predicted(x, t, mean, cov):
  """E[x0 | x_t] of N(mean_i, cov) at x_t = (1 - t) x0 + t eps."""
  noisy = (1 - t) ** 2 * cov + t**2 * np.eye(len(cov))
  return mean + (1 - t) * np.linalg.solve(noisy, (x - (1 - t) * mean).T).T @ cov


def dims(*names):
  return np.concatenate([np.arange(5)[AT[k]] for k in names])


def close(got, want, atol=2e-4):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), got, want)


def test_marginal():
  """Whatever the noise of the others."""
  x = draws(1)['a']
  for seed in (2, 3):
    z = draws(seed)
    pred = conditional(exact(), 'a', {k: z[k] for k in 'bc'})(x, 0.4)
    want = gaussian(MEAN[:2], COV[:2, :2]).denoiser(FLOW)(x, 0.4)
    close((pred.x0, pred.eps), (want.x0, want.eps))


def test_conditional():
  x, y = draws(1)['a'], draws(2)
  pred = conditional(exact(), 'a')(x, 0.4, clean({k: y[k] for k in 'bc'}))
  want = predicted(x, 0.4, *law(dims('a'), dims('b', 'c'), np.concatenate([y['b'], y['c']], 1)))
  close(pred.x0, want)
  close((1 - 0.4) * pred.x0 + 0.4 * pred.eps, x)


def test_conditional_on_some_of_the_others():
  x, y = draws(1)['a'], draws(2)
  cond = {**clean({'b': y['b']}), **marginalised(FLOW, {'c': y['c']})}
  close(conditional(exact(), 'a')(x, 0.4, cond).x0, predicted(x, 0.4, *law(dims('a'), dims('b'), y['b'])))


def test_joint_of_two_given_the_third():
  x, y = draws(1), draws(2)['b']
  pred = conditional(exact(), ('a', 'c'))({k: x[k] for k in 'ac'}, 0.4, clean({'b': y}))
  want = predicted(np.concatenate([x['a'], x['c']], 1), 0.4, *law(dims('a', 'c'), dims('b'), y))
  close(np.concatenate([pred.x0['a'], pred.x0['c']], 1), want)


def test_own_times():
  """A modality half clean is worth what its noise leaves: b at t = 0.5 is an observation of variance 1."""
  x, y = draws(1)['a'], draws(2)
  times = {'a': jnp.full(N, 0.4), 'b': jnp.full(N, 0.5), 'c': jnp.full(N, 1.0)}
  pred = exact()({'a': x, 'b': y['b'], 'c': y['c']}, times)
  cov = COV[2, 2] + 1.0  # of b / alpha = b0 + (sigma / alpha) eps
  gain = COV[:2, 2:3] / cov
  mean = MEAN[:2] + (y['b'] / 0.5 - MEAN[2]) @ gain.T
  close(pred.x0['a'], predicted(x, 0.4, mean, COV[:2, :2] - gain @ COV[2:3, :2]))


def test_guidance_without_a_null_token():
  x, y = draws(1)['a'], draws(2)
  noise, cond = {k: draws(3)[k] for k in 'bc'}, clean({k: y[k] for k in 'bc'})
  denoise = conditional(exact(), 'a', noise)
  c, u = denoise(x, 0.4, cond), denoise(x, 0.4)
  got = guidance.cfg(denoise, 3.0)(x, 0.4, cond)
  close((got.x0, got.eps), (u.x0 + 3 * (c.x0 - u.x0), u.eps + 3 * (c.eps - u.eps)))


def test_guided_joint():
  """m + s (e - m); at s = 1, and where nothing is correlated, the joint itself."""
  x, noise = draws(1), draws(2)
  e = exact()(x, 0.4)
  m = {k: conditional(exact(), k, {j: noise[j] for j in AT if j != k})(x[k], 0.4).x0 for k in AT}
  got = joint(exact(), 2.5, noise)(x, 0.4)
  close(got.x0, {k: m[k] + 2.5 * (e.x0[k] - m[k]) for k in AT})
  close(joint(exact(), 1.0, noise)(x, 0.4).eps, e.eps, atol=1e-5)
  apart = exact(np.diag(np.diag(COV)))
  close(joint(apart, 2.5, noise)(x, 0.4).x0, apart(x, 0.4).x0)
  assert guidance.cost(joint(exact(), 2.5, noise), 0.4) == 4


def test_samples_of_the_conditional():
  """The flow of N(m, C) given y, solved exactly; 64 steps of order 2 leave 1e-3 or so of order-one numbers."""
  x, y = draws(1)['a'], {k: np.repeat(draws(2)[k][:1], N, 0) for k in 'bc'}
  mean, cov = law(dims('a'), dims('b', 'c'), np.concatenate([y['b'], y['c']], 1))
  solver = solvers.dpmpp_2m(FLOW, grids.uniform(FLOW, 64))
  got = solvers.sample(conditional(exact(), 'a'), solver, x, cond=clean(y))
  close(got, gaussian_flow(gaussian(mean[0], cov), FLOW, x, 1.0, 0.0), atol=1e-2)


def test_refuses():
  with pytest.raises(ValueError, match='^cond: .*allowed'):
    conditional(exact(), 'a')(draws(1)['a'], 0.4)
  with pytest.raises(ValueError, match=r"^noise: got \['a'\]"):
    joint(exact(), 2.0, {'a': draws(1)['a']})


@pytest.mark.slow
def test_a_trained_network_knows_all_modes():
  """x, y in R^2, y = x rotated and noisy. The one network's five modes, against the exact ones, over 9 times.

  Root mean square error below 10% of the size sqrt(alpha^2 + sigma^2) of what the network learns, and, from t = 0.5 on,
  where x_t alone no longer tells x0, below a third of what taking a conditional for the marginal or the reverse costs.
  (The size of the exact prediction would be no measure: that of the marginal, N(0, I), is v = 0 at all times.)
  """
  turn = np.array([[0.8, -0.6], [0.6, 0.8]])
  cov = np.eye(4)
  cov[2:, :2], cov[:2, 2:] = 0.95 * turn, 0.95 * turn.T
  net, kind = unidiffuser(depth=2, width=64, heads=4), as_kind('v')
  optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, 2500))

  def pair(key, n):
    z = jax.random.normal(key, (n, 4)) @ np.float32(np.linalg.cholesky(cov)).T
    return {'x': z[:, :2], 'y': z[:, 2:]}

  def loss(params, key):
    k_data, k_t, k_eps = jax.random.split(key, 3)
    x0 = pair(k_data, 256)
    eps = keys.normal(keys.per_sample(k_eps, 256), x0)
    times = 1.1 * jax.random.uniform(k_t, (2, 256)) - 0.05  # the ends 0 and 1 get a twentieth each
    t = dict(zip(x0, jnp.clip(times, 0, 1), strict=True))
    out = apply_net(net, params, FLOW, kind, FLOW.perturb(x0, eps, t), t)
    want = target(FLOW, kind, x0, eps, t)
    return sum(jnp.mean((out[k] - want[k]) ** 2) for k in x0)

  @jax.jit
  def train(params, key):
    def step(carry, key):
      params, state = carry
      moves, state = optimiser.update(jax.grad(loss)(params, key), state)
      return (optax.apply_updates(params, moves), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, 2500))[0][0]

  few = pair(jax.random.key(0), 2)
  params = train(net.init(jax.random.key(1), few, jnp.zeros(2)), jax.random.key(2))
  denoise = Denoiser(params, FLOW, kind, net=net)
  x0 = pair(jax.random.key(3), 512)
  noise = {k: jax.random.normal(jax.random.key(i), (512, 2)) for i, k in enumerate('xy', 5)}

  def exact_v(z, t, law):
    mean, c = law
    clean = predicted(np.asarray(z, np.float64), t, mean, c)
    return (1 - t) * (z - (1 - t) * clean) / t - t * clean

  for t in np.linspace(0.1, 0.9, 9):
    xt, size = FLOW.perturb(x0, noise, t), np.hypot(1 - t, t)
    alone, other = (np.zeros(2), np.eye(2)), {'x': 'y', 'y': 'x'}
    for k, r in (('x', 0.95 * turn.T), ('y', 0.95 * turn)):
      o = other[k]
      known = (np.asarray(x0[o]) @ r.T, np.eye(2) - r @ r.T)
      for cond, truth, wrong in ((clean({o: x0[o]}), known, alone), (marginalised(FLOW, {o: noise[o]}), alone, known)):
        pred = conditional(denoise, k)(xt[k], t, cond)
        v = (1 - t) * pred.eps - t * pred.x0
        error = np.sqrt(np.mean((v - exact_v(xt[k], t, truth)) ** 2))
        confused = np.sqrt(np.mean((exact_v(xt[k], t, wrong) - exact_v(xt[k], t, truth)) ** 2))
        assert error < 0.1 * size and (t < 0.5 or 3 * error < confused)
    pred = denoise(xt, t)
    v = np.concatenate([(1 - t) * pred.eps[k] - t * pred.x0[k] for k in 'xy'], 1)
    truth = exact_v(np.concatenate([xt['x'], xt['y']], 1), t, (np.zeros(4), cov))
    assert np.sqrt(np.mean((v - truth) ** 2)) < 0.1 * size
