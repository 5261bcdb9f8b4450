"""Implicit and sliced score matching: the denoising loss less a constant, with the same minimiser on a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import keys, losses, schedules
from diffjax.errors import InputError
from diffjax.exact import gaussian
from diffjax.losses import weights
from diffjax.losses.times import TimeLaw

COV = np.array([[1.0, 0.4], [0.4, 0.3]])
LAW, PROCESS, T = gaussian([0.0, 0.0], COV), schedules.vp_linear(), 0.4
AT = TimeLaw(Partial(lambda t, process, u: jnp.full_like(u, t), jnp.asarray(T)),
             Partial(lambda process, t: jnp.ones_like(t)))  # fmt: skip
LOSSES = {
  'denoising': losses.denoising,
  'implicit': losses.implicit,
  'sliced': losses.sliced,
  'gaussian': lambda *a, **k: losses.sliced(*a, probe='gaussian', slices=2, **k),
}


def linear(params, x, t, cond, key):
  return x @ params.T


def slopes(name, params, n=8000, **options):
  """The gradient of each example's value in the matrix (n, 2, 2)."""
  loss = LOSSES[name](PROCESS, linear, times=AT, **options)
  x = LAW.sample(keys.per_sample(jax.random.key(0), n))
  own = keys.per_sample(jax.random.key(1), n)
  one = lambda p, x, k: loss({'student': p}, {'x': x[None]}, k[None])[0][0]  # noqa: E731
  return np.asarray(jax.jit(jax.vmap(jax.grad(one), (None, 0, 0)))(params, x, own))


def minimiser(kind):
  """Of eps: sigma (alpha^2 C + sigma^2 I)^{-1}; of x0: alpha C (alpha^2 C + sigma^2 I)^{-1}."""
  alpha, sigma = (float(v) for v in PROCESS.schedule(jnp.asarray(T)))
  noisy = np.linalg.inv(alpha**2 * COV + sigma**2 * np.eye(2))
  return jnp.asarray({'eps': sigma * noisy, 'x0': alpha * COV @ noisy}[kind], jnp.float32)


def vanishes(each):
  mean, se = each.mean(0), each.std(0) / np.sqrt(len(each))
  assert (np.abs(mean) <= 4 * se + 1e-6).all(), (mean, se)


@pytest.mark.parametrize(
  'name, kind', [('denoising', 'eps'), ('implicit', 'eps'), ('sliced', 'x0'), ('gaussian', 'eps')]
)
def test_the_minimiser_on_a_gaussian_is_its_score(name, kind):
  vanishes(slopes(name, minimiser(kind), kind=kind))


@pytest.mark.parametrize('name', ['implicit', 'sliced'])
def test_away_from_it_the_gradient_is_that_of_denoising(name):
  """Under a weight and a kind of their own: the difference of values has no slope."""
  params = jnp.asarray([[0.5, 0.2], [-0.3, 0.8]])
  options = dict(kind='v', weight=weights.min_snr(2.0))
  difference = slopes(name, params, **options) - slopes('denoising', params, **options)
  vanishes(difference)
  assert np.abs(slopes('denoising', params, **options).mean(0)).max() > 0.05


@pytest.mark.slow
def test_the_divergence_written_out():
  """Of x @ A^T it is tr A: the value of one example, by hand; sliced with any probe of a diagonal A is the same."""
  matrix = jnp.asarray([[0.5, 0.0], [0.0, 0.8]])
  x, own = jnp.asarray([[0.3, -1.0]]), keys.per_sample(jax.random.key(3), 1)
  alpha, sigma = PROCESS.schedule(jnp.asarray(T))
  values = {n: LOSSES[n](PROCESS, linear, times=AT, kind='eps')({'student': matrix}, {'x': x}, own)[0] for n in LOSSES}
  seen = []
  spy = lambda params, x, t, cond, key: seen.append(x) or linear(params, x, t, cond, key)  # noqa: E731
  LOSSES['denoising'](PROCESS, spy, times=AT, kind='eps')({'student': matrix}, {'x': x}, own)
  want = (jnp.sum((seen[0] @ matrix.T) ** 2) - 2 * sigma * jnp.trace(matrix)) / 2
  np.testing.assert_allclose(values['implicit'], want[None], rtol=1e-5)
  np.testing.assert_allclose(values['sliced'], want[None], rtol=1e-5)


def test_bad_input_is_refused():
  with pytest.raises(InputError, match="probe: got 'exact'; allowed: rademacher, gaussian"):
    losses.sliced(PROCESS, linear, probe='exact')
  with pytest.raises(InputError, match='slices: got 0'):
    losses.sliced(PROCESS, linear, slices=0)
  with pytest.raises(InputError, match='null: got None with drop_cond = 0.1'):
    losses.implicit(PROCESS, linear, drop_cond=0.1)
