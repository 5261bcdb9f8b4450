"""The denoising loss against Gaussians, whose exact denoiser and ELBO are closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.losses import denoising, times, weights

C = 0.5  # the standard deviation of the data
PROCESSES = {'cosine': schedules.cosine, 'flow': schedules.flow, 've': schedules.ve, 'edm': schedules.edm}


def exact(process):
  """theta times the exact eps prediction sigma x / (alpha^2 c^2 + sigma^2), as a network that is told its clock."""

  def net(params, x, t, cond, key):
    t = jnp.exp(4 * t) if process.by_noise else t / 1000
    if process.by_noise:  # the clock is log(sigma/alpha)/4, and alpha = 1
      alpha, sigma = jnp.ones_like(t), t
    else:
      alpha, sigma = process.schedule(t)
    return params * (sigma / (alpha**2 * C**2 + sigma**2))[:, None] * x

  return net


def data(n, d=8, seed=0):
  return {'x': C * jax.random.normal(jax.random.key(seed), (n, d))}


def run(loss, params, batch, seed=1):
  return jax.jit(loss)({'student': jax.tree.map(jnp.asarray, params)}, batch, jax.random.key(seed))


@pytest.mark.parametrize('process', PROCESSES)
def test_elbo_of_a_gaussian(process):
  """-int lam' E(eps_hat - eps)^2 dt = log[(1 + c^2 snr(t_min)) / (1 + c^2 snr(t_max))] / 2, snr = alpha^2 / sigma^2,

  since the error is snr c^2 / (1 + snr c^2) a dimension. Within 5 standard errors and 2%.
  """
  process = PROCESSES[process]()
  alpha, sigma = (np.asarray(c, np.float64) for c in process.schedule(jnp.asarray([process.t_min, process.t_max])))
  low, high = np.log1p(C**2 * (alpha / sigma) ** 2)
  law = times.stratified(times.lognormal(-1.0, 2.0))
  values, aux = run(denoising(process, exact(process), 'eps', times=law, weight=weights.elbo()), 1.0, data(20_000))
  values = np.asarray(values, np.float64)
  error = values.std() / np.sqrt(len(values))
  assert abs(values.mean() - (low - high) / 2) < 5 * error
  assert abs(values.mean() / ((low - high) / 2) - 1) < 0.02
  snr = np.asarray((lambda a, s: (a / s) ** 2)(*process.schedule(aux['t'])))
  known = snr * C**2 / (1 + snr * C**2)
  assert abs(np.mean(aux['error'] / known) - 1) < 0.02


@pytest.mark.parametrize('weight', ['sigmoid', 'elbo'])
def test_expected_loss_does_not_depend_on_the_law_of_t(weight):
  """An inexact network under three laws of t: means within 2% of each other and 5 standard errors.

  The laws reach both ends: where p(t) vanishes faster than the integrand, a finite sample misses what lies there.
  """
  process = schedules.cosine()
  laws = times.uniform(), times.logit_normal(0.0, 2.0), times.lognormal(-0.5, 1.8)
  means, errors = [], []
  for law in laws:
    loss = denoising(process, exact(process), 'eps', times=times.stratified(law), weight=getattr(weights, weight)())
    values = np.asarray(run(loss, 0.7, data(20_000))[0], np.float64)
    means.append(values.mean())
    errors.append(values.std() / np.sqrt(len(values)))
  spread = np.abs(np.asarray(means) - means[0])
  assert (spread < 5 * np.hypot(errors, errors[0]) + 1e-9).all()
  assert (spread < 0.02 * means[0]).all(), means


def test_exact_denoiser_is_stationary():
  """The derivative of the expected loss by theta is 0 at theta = 1 (5 standard errors), and plainly not at 1.1."""
  process = schedules.cosine()
  loss = denoising(process, exact(process), 'eps', times=times.stratified())
  batch = data(20_000)

  @jax.jit
  def slopes(theta):
    return jax.jvp(lambda p: loss({'student': p}, batch, jax.random.key(2))[0], (theta,), (jnp.ones(()),))[1]

  for theta, small in ((1.0, True), (1.1, False)):
    slope = np.asarray(slopes(jnp.asarray(theta)), np.float64)
    error = slope.std() / np.sqrt(len(slope))
    assert (abs(slope.mean()) < 5 * error) == small


def affine(params, x, t, cond, key):
  return params['w'] * x + t.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) * params['b']


def halved(params, x, t, cond, key):
  out = affine(params, x.astype(jnp.bfloat16), t.astype(jnp.bfloat16), cond, key)
  return out.astype(jnp.bfloat16)


PARAMS = {'w': jnp.asarray(0.3), 'b': jnp.asarray(1e-3)}


@pytest.mark.parametrize('kind', ['v', 'edm'])
def test_values_are_float32(kind):
  """bfloat16 networks and data give float32 values, near those of float32."""
  process = schedules.vp_linear()
  x = jax.random.normal(jax.random.key(0), (8, 4, 4, 1))
  values, aux = run(denoising(process, affine, kind), PARAMS, {'x': x}, 5)
  assert values.dtype == aux['t'].dtype == aux['error'].dtype == jnp.float32
  assert values.shape == aux['t'].shape == aux['error'].shape == (8,)
  coarse, _ = run(denoising(process, halved, kind), PARAMS, {'x': x.astype(jnp.bfloat16)}, 5)
  assert coarse.dtype == jnp.float32
  np.testing.assert_allclose(coarse, values, rtol=0.1)


def test_rows_belong_to_their_example():
  """The same with and without jit; a row does not see the rest of its batch."""
  loss = denoising(schedules.vp_linear(), affine, 'v', times=times.logit_normal(), weight=weights.min_snr())
  x = jax.random.normal(jax.random.key(0), (8, 3))
  batch_keys = keys.per_sample(jax.random.key(5), 8)
  values = run(loss, PARAMS, {'x': x}, 5)[0]
  part = loss({'student': PARAMS}, {'x': x[2:5]}, batch_keys[2:5])[0]
  np.testing.assert_allclose(part, values[2:5], rtol=1e-5)


def test_formula_by_hand():
  """One example: mean over data dims of (net - target)^2, net told 1000 t, x perturbed with the same noise."""
  process = schedules.flow()
  seen = {}

  def net(params, x, t, cond, key):
    seen.update(x=x, t=t, cond=cond)
    assert key.shape == (3,)
    return jnp.zeros_like(x)

  x0 = jnp.arange(12.0).reshape(3, 2, 2)
  batch = {'x': x0, 'cond': jnp.arange(3)}
  values, aux = denoising(process, net, 'velocity')({'student': None}, batch, jax.random.key(0))
  t = aux['t'][:, None, None]
  eps = (seen['x'] - (1 - t) * x0) / t
  np.testing.assert_allclose(seen['t'], 1000 * aux['t'], rtol=1e-6)
  np.testing.assert_array_equal(seen['cond'], jnp.arange(3))
  np.testing.assert_allclose(values, jnp.mean((eps - x0) ** 2, axis=(1, 2)), rtol=1e-4)
  np.testing.assert_array_equal(values, aux['error'])


def test_modalities_add_their_means():
  process = schedules.flow()

  def net(params, x, t, cond, key):
    return jax.tree.map(lambda x: jnp.zeros_like(x), x)

  x = {'a': jnp.ones((4, 3)), 'b': jnp.full((4, 2, 2), 2.0)}
  values, _ = run(denoising(process, net, 'x0'), None, {'x': x}, 0)
  np.testing.assert_allclose(values, 1 + 4)


def told(params, x, t, cond, key):
  """1 where the condition is the null one: the loss of x0 = 0 then counts drops."""
  return jnp.broadcast_to((cond['label'] == 7).astype(x.dtype)[:, None], x.shape)


def test_conditions_are_dropped_as_often_as_asked():
  n, rate = 5000, 0.15
  batch = {'x': jnp.zeros((n, 2)), 'cond': {'label': jnp.zeros(n, jnp.int32), 'text': jnp.ones((n, 3))}}
  null = {'label': 7, 'text': jnp.zeros(3)}
  loss = denoising(schedules.flow(), told, 'x0', drop_cond=rate, null=null)
  dropped = np.asarray(run(loss, None, batch, 0)[0])
  assert set(dropped) == {0.0, 1.0}
  assert abs(dropped.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)
  few = jax.tree.map(lambda v: v[:50], batch)
  np.testing.assert_array_equal(run(loss, None, few, 0)[0], dropped[:50])


def test_labels_become_others_as_often_as_asked():
  """Half become any of four, their own among them; the rest and all other draws are as without."""
  n, batch = 4000, {'x': jnp.ones((4000, 2)), 'cond': jnp.full(4000, 2)}

  def label(params, x, t, cond, key):
    return jnp.zeros_like(x) + cond[:, None]

  plain, corrupted = (denoising(schedules.flow(), label, 'v', corrupt=rate, null=4) for rate in (0.0, 0.5))
  before, after = run(plain, None, batch, 0), run(corrupted, None, batch, 0)
  np.testing.assert_array_equal(before[1]['t'], after[1]['t'])
  same = np.asarray(before[0] == after[0])
  assert abs(same.mean() - 0.625) < 5 * np.sqrt(0.625 * 0.375 / n)
  for bad, message in (dict(corrupt=1.5, null=4), 'probability'), (dict(corrupt=0.5), 'without labels'):
    with pytest.raises(ValueError, match=f'corrupt: got .*{message}'):
      denoising(schedules.flow(), label, 'v', **bad)


def test_what_was_augmented_is_always_told():
  """Labels of half of the examples are dropped; the augmentation of every one reaches the network as it is."""
  n = 1000
  batch = {'x': jnp.zeros((n, 2)), 'cond': jnp.zeros(n, jnp.int32), 'augment': jnp.arange(9.0 * n).reshape(n, 9)}

  def net(params, x, t, cond, key):
    right = (cond['augment'] == batch['augment'][: len(x)]).all(1)
    return told(params, x, t, cond, key) + jnp.where(right, 0, 10.0)[:, None]

  dropped = np.asarray(run(denoising(schedules.flow(), net, 'x0', drop_cond=0.5, null=7), None, batch, 0)[0])
  assert set(dropped) == {0.0, 1.0} and abs(dropped.mean() - 0.5) < 5 * np.sqrt(0.25 / n)
  unlabelled = {name: rows for name, rows in batch.items() if name != 'cond'}
  loss = denoising(schedules.flow(), lambda params, x, t, cond, key: cond['label'] or x)
  jax.eval_shape(loss, {'student': None}, unlabelled, jax.random.key(0))


def test_dropping_does_not_change_other_draws():
  batch = {'x': jnp.ones((6, 2)), 'cond': jnp.zeros(6, jnp.int32)}
  plain, dropping = (
    run(denoising(schedules.flow(), affine, 'v', drop_cond=drop, null=1), PARAMS, batch, 3) for drop in (0.0, 0.5)
  )
  np.testing.assert_array_equal(plain[0], dropping[0])


def test_bad_input_is_refused_before_anything_runs():
  process = schedules.flow()
  with pytest.raises(ValueError, match="kind: got 'epsilon'"):
    denoising(process, affine, 'epsilon')
  with pytest.raises(ValueError, match='drop_cond: got 1.5; allowed'):
    denoising(process, affine, drop_cond=1.5, null=0)
  with pytest.raises(ValueError, match='null: got None with drop_cond = 0.1'):
    denoising(process, affine, drop_cond=0.1)
