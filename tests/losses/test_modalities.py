"""The loss of several modalities: networks that answer with what they were told show which times were drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import schedules
from diffjax.kinds import as_kind
from diffjax.losses import modalities, times

N = 20_000
ZEROS = {'a': jnp.zeros((N, 1)), 'b': jnp.zeros((N, 2, 1))}


def run(loss, x, params=(), seed=0):
  return jax.jit(loss)({'student': params}, {'x': x}, jax.random.key(seed))


def silent(params, x, t, cond, key):
  return jax.tree.map(jnp.zeros_like, x)


def own_time(params, x, t, cond, key):
  return {name: jnp.broadcast_to((t[name] / 1000).reshape(-1, *(1,) * (x[name].ndim - 1)), x[name].shape) for name in x}


def other_time(params, x, t, cond, key):
  return own_time(params, x, {'a': t['b'], 'b': t['a']}, cond, key)


def test_means_are_added_but_of_what_is_given():
  """Goals of 1 and 2 against answers of 0: 1 + 4, less a summand where that modality is clean."""
  x = {'a': jnp.ones((N, 3)), 'b': jnp.full((N, 2, 2), 2.0)}
  values, aux = run(modalities(schedules.flow(), silent, 'x0', ends=0.2), x)
  np.testing.assert_allclose(values, aux['error_a'] + aux['error_b'])
  shares = [np.mean(np.isclose(values, v)) for v in (0, 1, 4, 5)]
  want = np.array([0.04, 0.16, 0.16, 0.64])
  assert np.all(np.abs(shares - want) < 5 * np.sqrt(want / N))


def test_times_are_independent_and_reach_their_ends():
  """Uniform inside, with a tenth on either end; squares of the own time beside squares of the other's."""
  process, errors = schedules.flow(t_min=0.0), {}
  for net in (own_time, other_time):
    _, errors[net] = run(modalities(process, net, 'x0', ends=0.1), ZEROS)
  a, b = (np.sqrt(np.float64(errors[own_time]['error_' + k])) for k in 'ab')
  told = np.sqrt(np.float64(errors[other_time]['error_a']))
  np.testing.assert_allclose(told[a > 0], b[a > 0], atol=1e-6)
  for t in (a, b):
    assert abs(np.mean(t == 0) - 0.1) < 5 * np.sqrt(0.09 / N) and abs(np.mean(t == 1) - 0.1) < 5 * np.sqrt(0.09 / N)
    inside = np.sort(t[(t > 0) & (t < 1)])
    assert np.abs(inside - (np.arange(inside.size) + 0.5) / inside.size).max() < 2 / np.sqrt(inside.size)
  assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(N)


def test_each_is_weighed_at_its_own_time_by_its_own_law():
  """The error being t^2, values are the sum of t^2 / p(t) over both times."""
  law = times.logit_normal(-0.5, 1.0)
  process = schedules.flow()
  loss = modalities(process, own_time, 'x0', law, weight=inverse, ends=0.0)
  values, aux = run(loss, ZEROS)
  want = sum(e / law.density(process, jnp.sqrt(e)) for e in (aux['error_a'], aux['error_b']))
  np.testing.assert_allclose(values, want, rtol=2e-3)


def inverse(process, kind, t, density):
  return 1 / density


def test_a_sample_is_its_own():
  few = jax.tree.map(lambda x: x[:50], ZEROS)
  loss = modalities(schedules.flow(), other_time, 'v')
  np.testing.assert_allclose(run(loss, few)[0], run(loss, ZEROS)[0][:50], rtol=1e-6)


@pytest.mark.parametrize('kind', ['v', 'velocity', 'eps', 'x0'])
def test_gradients_are_finite_at_the_ends(kind):
  """The velocity of the cosine process is infinite at t = 0, so is a score's target: nothing given clean is judged."""

  def net(params, x, t, cond, key):
    return jax.tree.map(lambda x: params * x, x)

  loss = modalities(schedules.cosine(), net, kind, ends=0.5)
  x = jax.tree.map(lambda x: x[:200] + 1, ZEROS)
  slope = jax.grad(lambda p: jnp.mean(loss({'student': p}, {'x': x}, jax.random.key(0))[0]))(1.0)
  assert jnp.isfinite(slope) and slope != 0


def test_refuses():
  with pytest.raises(ValueError, match='^ends: got 0.6'):
    modalities(schedules.flow(), silent, ends=0.6)
  with pytest.raises(ValueError, match='^kind: got'):
    modalities(schedules.flow(), silent, 'noise')
  for process, kind in ((schedules.ve(), 'eps'), (schedules.flow(), 'edm')):
    with pytest.raises(ValueError, match='^process, kind: .*allowed'):
      modalities(process, silent, as_kind(kind))
