"""Orders one to three of denoising score matching: each is stationary at the exact score, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import keys, losses, schedules
from diffjax.errors import InputError
from diffjax.exact import mixture
from diffjax.losses.times import TimeLaw

LAW = mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])
PROCESS, T = schedules.vp_linear(), 0.35
AT = TimeLaw(Partial(lambda t, process, u: jnp.full_like(u, t), jnp.asarray(T)),
             Partial(lambda process, t: jnp.ones_like(t)))  # fmt: skip


def wrong_by(params, x, t, cond, key):
  """The exact noise, and `params` times a field that curls and bends."""
  exact = LAW.denoiser(PROCESS)(x, jnp.asarray(T)).eps
  return exact + params * jnp.stack([jnp.sin(x[:, 1] + x[:, 0]), jnp.cos(2 * x[:, 0])], -1)


def batch(n, seed=0):
  return {'x': LAW.sample(keys.per_sample(jax.random.key(seed), n))}, keys.per_sample(jax.random.key(seed + 1), n)


@pytest.mark.parametrize('probe', ['exact', 'rademacher'])
def test_every_order_is_least_at_the_exact_score(probe):
  """The slope of each in an error of the score is 0 there within 4 standard errors, and is not at 5% of it."""
  loss = losses.high_order(PROCESS, wrong_by, order=3, probe=probe, times=AT)
  data, own = batch(6000)

  def each(error, x, k):
    return {n: v[0] for n, v in loss({'student': error}, {'x': x[None]}, k[None])[1].items() if 'order' in n}

  slopes = jax.jit(jax.vmap(jax.jacfwd(each), (None, 0, 0)))
  at_truth, off = slopes(0.0, data['x'], own), slopes(0.3, data['x'], own)
  assert sorted(at_truth) == ['order1', 'order2', 'order3']
  for name, slope in at_truth.items():
    slope = np.asarray(slope, np.float64)
    assert abs(slope.mean()) <= 4 * slope.std() / np.sqrt(len(slope)), (name, slope.mean())
    beside = np.asarray(off[name], np.float64)
    assert beside.mean() > 4 * beside.std() / np.sqrt(len(beside)), name


@pytest.mark.slow
def test_exact_orders_written_out():
  """With a linear network, eps_hat = A x: H = -sigma A, and no third derivative."""
  a = jnp.asarray([[0.7, 0.2], [-0.1, 0.4]])
  seen = []
  net = lambda params, x, t, cond, key: seen.append(x) or x @ params.T  # noqa: E731
  data, own = batch(3)
  losses.denoising(PROCESS, net, 'eps', times=AT)({'student': a}, data, own)
  _, aux = losses.high_order(PROCESS, net, probe='exact', times=AT)({'student': a}, data, own)
  alpha, sigma = (float(v) for v in PROCESS.schedule(jnp.asarray(T)))
  h, eye = -sigma * np.asarray(a), np.eye(2)
  for i in range(3):
    x = np.asarray(seen[0][i])
    left = (x - alpha * np.asarray(data['x'][i])) / sigma - np.asarray(a) @ x
    second = np.sum((h + eye - np.outer(left, left)) ** 2) + (np.trace(h) + 2 - left @ left) ** 2
    third = np.sum((left @ left * left - (np.trace(h) + 2) * left - 2 * (h + eye) @ left) ** 2)
    np.testing.assert_allclose([aux['order1'][i], aux['order2'][i], aux['order3'][i]],
                               [left @ left / 2, second / 2, third / 2], rtol=1e-3)  # fmt: skip


@pytest.mark.slow
def test_order_one_is_the_denoising_loss():
  data, own = batch(5)
  first = losses.high_order(PROCESS, wrong_by, order=1)({'student': 0.2}, data, own)[0]
  np.testing.assert_allclose(
    first, losses.denoising(PROCESS, wrong_by, 'eps')({'student': 0.2}, data, own)[0], rtol=1e-5
  )


def test_bad_input_is_refused():
  for options, told in ((dict(order=4), 'order: got 4; allowed: 1, 2, 3'), (dict(probe='gaussian'), 'probe: got'),
                        (dict(third=-1.0), 'second, third: got 1.0, -1.0')):  # fmt: skip
    with pytest.raises(InputError, match=told):
      losses.high_order(PROCESS, wrong_by, **options)
