"""Losses of the heads: stationary at the conditional moments of a discrete problem, the backbone frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.exact import mixture
from diffjax.losses import moments, times
from diffjax.prediction import as_denoiser

BIAS = 0.2
PROCESS = schedules.cosine()
POINTS = np.array([[-0.7], [0.5]])  # the data: two points, with these chances
CHANCES = [0.3, 0.7]


def biased(x, t, cond=None):
  """E[eps | x_t] of the two points by Bayes' rule, plus a constant."""
  return mean_of(x, t, lambda eps: eps) + BIAS


def mean_of(x, t, f):
  """E[f(eps) | x_t = x] by Bayes' rule."""
  alpha, sigma = (c[:, None] for c in PROCESS.schedule(t))
  eps = jnp.stack([(x - alpha * p) / sigma for p in POINTS])
  chance = jax.nn.softmax(jnp.log(jnp.asarray(CHANCES))[:, None, None] - eps**2 / 2, axis=0)
  return jnp.sum(chance * f(eps), axis=0)


def truth(name, x, t):
  if name == 'residual2':
    return mean_of(x, t, lambda eps: (eps - biased(x, t)) ** 2)
  return mean_of(x, t, lambda eps: eps ** (3 if name == 'eps3' else 2))


BASE = as_denoiser(biased, PROCESS, 'eps')


NAMES = 'eps2', 'eps3', 'residual2'


def around(theta, x, t, cond, key):
  """The conditional moments, moved by theta in scale, level and slope, as a network that is told 1000 t."""
  exact = [truth(name, x, t / 1000) for name in NAMES]
  return jnp.concatenate([e * (1 + theta[0]) + theta[1] + theta[2] * x for e in exact], -1)


@pytest.mark.slow
def test_the_minimiser_is_the_conditional_moment():
  """Every derivative is 0 there within 5 standard errors, and plainly is not where scale, level or slope are .2 off."""
  n = 20_000
  loss = moments(PROCESS, around, NAMES, BASE, times=times.stratified())
  x = mixture(CHANCES, POINTS, [0.0, 0.0]).sample(keys.per_sample(jax.random.key(0), n))

  @jax.jit
  def slopes(theta):
    return jax.jacfwd(lambda theta: loss({'student': theta}, {'x': x}, jax.random.key(1))[1])(theta)

  def size(theta):
    found = slopes(jnp.asarray(theta, jnp.float32))
    slope = np.asarray([found[name] for name in NAMES], np.float64)
    return np.abs(slope.mean(1)) / (slope.std(1) / np.sqrt(n))

  assert (size([0, 0, 0]) < 5).all()
  for i in range(3):
    assert (size(0.2 * np.eye(3)[i])[:, i] > 5).all()


def test_formula_by_hand():
  """Blocks of channels in the order of the names, means over an example, the network told 1000 t and no key less."""
  seen = {}

  def net(params, x, t, cond, key):
    seen.update(x=x, t=t, cond=cond)
    assert key.shape == (3,)
    return params * jnp.concatenate([jnp.full_like(x, value) for value in (1.0, 2.0, 3.0)], -1)

  names = 'residual2', 'eps3', 'eps2'
  x0 = jnp.arange(12.0).reshape(3, 2, 2) / 6 - 1
  base = as_denoiser(lambda x, t, cond: 0.1 * x + cond.reshape(-1, 1, 1), PROCESS, 'eps')
  batch = {'x': x0, 'cond': jnp.arange(3)}
  values, aux = moments(PROCESS, net, names, base)({'student': jnp.ones(())}, batch, jax.random.key(0))
  t = aux['t']
  alpha, sigma = (c.reshape(-1, 1, 1) for c in PROCESS.schedule(t))
  eps = (seen['x'] - alpha * x0) / sigma
  np.testing.assert_allclose(seen['t'], 1000 * t, rtol=1e-6)
  np.testing.assert_array_equal(seen['cond'], jnp.arange(3))
  residual = eps - 0.1 * seen['x'] - jnp.arange(3).reshape(-1, 1, 1)
  for name, target in (('residual2', residual**2 - 1), ('eps3', eps**3 - 2), ('eps2', eps**2 - 3)):
    np.testing.assert_allclose(aux[name], jnp.mean(target**2, axis=(1, 2)), rtol=2e-4)
  np.testing.assert_allclose(values, sum(aux[name] for name in names), rtol=1e-6)
  assert values.dtype == jnp.float32 and values.shape == (3,)


def line(params, x, t, cond, key):
  return params['w'] * x


def test_the_backbone_is_frozen_and_comes_from_its_role():
  """No gradient reaches the teacher's parameters, which replace those of `base`."""
  base = as_denoiser(biased, PROCESS, 'eps').replace(net=line)
  loss = moments(PROCESS, line, 'residual2', base)
  batch = {'x': jnp.asarray(POINTS.repeat(4, 0), jnp.float32)}

  def total(student, teacher):
    return jnp.sum(loss({'student': {'w': student}, 'teacher': {'w': teacher}}, batch, jax.random.key(0))[0])

  by_student, by_teacher = jax.grad(total, argnums=(0, 1))(0.5, 0.8)
  assert by_teacher == 0 and by_student != 0
  closed = moments(PROCESS, line, 'residual2', base.replace(params={'w': 0.8}))
  same = jnp.sum(closed({'student': {'w': 0.5}}, batch, jax.random.key(0))[0])
  np.testing.assert_allclose(total(0.5, 0.8), same, rtol=1e-6)
  assert abs(total(0.5, 0.3) - same) > 1e-3


def test_bad_input_is_refused():
  for names in ((), ('eps2', 'eps2'), ('eps4',), 'variance'):
    with pytest.raises(ValueError, match='names: got .*; allowed: one or more of eps2, eps3, residual2'):
      moments(PROCESS, line, names)
  with pytest.raises(ValueError, match="base: got None with 'residual2'"):
    moments(PROCESS, line, ('eps2', 'residual2'))
  with pytest.raises(ValueError, match="kind: got 'epsilon'"):
    moments(PROCESS, line, kind='epsilon')
  narrow = moments(PROCESS, line, ('eps2', 'eps3'))
  with pytest.raises(ValueError, match=r'net: got an output of shape \(2, 1\) .*allowed: 2 times the channels'):
    narrow({'student': {'w': 1.0}}, {'x': jnp.asarray(POINTS)}, jax.random.key(0))
