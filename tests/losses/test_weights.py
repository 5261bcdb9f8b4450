"""Every kind's error is a multiple of the error of x0; a weight means the same whatever the kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import kinds, schedules
from diffjax.kinds import as_kind
from diffjax.losses import times, weights
from diffjax.prediction import target

PROCESSES = {
  'vp': schedules.cosine,
  'flow': schedules.flow,
  'edm': schedules.edm,
  'sub_vp': schedules.sub_vp,
  've': schedules.ve,
}
SD = 0.5


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def at_random(process, n=200):
  """Times, their coefficients and rates, and what is asked: x0, eps and a wrong x0 with the eps it implies."""
  rng = np.random.default_rng(0)
  t = jnp.asarray(process.t_min + (0.98 * process.t_max - process.t_min) * rng.random(n) ** 2)
  a, s = (np.asarray(c) for c in process.schedule(t))
  da, ds = (np.asarray(c) for c in process.rates(t))
  x0, eps, wrong = rng.normal(size=(3, n))
  return t, (a, s, da, ds), (x0, eps), (wrong, eps + a / s * (x0 - wrong))


def error(process, kind, t, truth, guess):
  """The squared error of the network's output that stands for this guess."""
  want, got = (target(process, kind, *(jnp.asarray(v) for v in pair), t) for pair in (truth, guess))
  return np.asarray((got - want) ** 2)


@pytest.mark.parametrize('process', PROCESSES)
def test_table_of_targets(process, x64):
  """By the algebra of the pair: error of the kind = W |x0_hat - x0|^2, to 1e-5 relative."""
  process = PROCESSES[process]()
  t, (a, s, da, ds), truth, guess = at_random(process)
  table = {
    'x0': 1,
    'eps': (a / s) ** 2,
    'v': ((a**2 + s**2) / s) ** 2,
    'velocity': (da - ds * a / s) ** 2,
    'score': (a / s) ** 2 / s**2,
    'edm': (a**2 * SD**2 + s**2) / (s * SD) ** 2,
  }
  assert set(table) == set(kinds.__all__)
  delta = (guess[0] - truth[0]) ** 2
  for kind, weight in table.items():
    np.testing.assert_allclose(error(process, kind, t, truth, guess), weight * delta, rtol=1e-5)


def test_columns_of_the_table(x64):
  """Its closed forms for VP, rectified flow and EDM."""
  columns = {
    'vp': lambda t, a, s: {'v': (a / s) ** 2 + 1},
    'flow': lambda t, a, s: {'eps': ((1 - t) / t) ** 2, 'v': ((1 - 2 * t + 2 * t**2) / t) ** 2, 'velocity': 1 / t**2},
    'edm': lambda t, a, s: {'eps': 1 / s**2, 'v': (1 + s**2) ** 2 / s**2, 'velocity': 1 / s**2},
  }
  for name, column in columns.items():
    process = PROCESSES[name]()
    t, (a, s, *_), truth, guess = at_random(process)
    for kind, weight in column(np.asarray(t), a, s).items():
      ratio = error(process, kind, t, truth, guess) / (guess[0] - truth[0]) ** 2
      np.testing.assert_allclose(ratio, weight, rtol=1e-5)


def slope(process, t):
  return np.asarray(jax.vmap(jax.grad(process.lam))(t))


def integrated(a, s, slope):
  return -slope * (a / s) ** 2 / 3


WEIGHTS = {
  'min_snr': (lambda: weights.min_snr(4.0), lambda a, s, slope: np.minimum((a / s) ** 2, 4.0)),
  'edm': (lambda: weights.edm(SD), lambda a, s, slope: (a**2 * SD**2 + s**2) / (s * SD) ** 2),
  'elbo': (weights.elbo, integrated),
  'sigmoid': (
    lambda: weights.sigmoid(1.5),
    lambda a, s, slope: integrated(a, s, slope) / (1 + np.exp(-1.5) * (a / s) ** 2),
  ),
}


def test_every_weight_is_here():
  assert set(weights.__all__) == {*WEIGHTS, 'unit'}


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('name', WEIGHTS)
def test_weights_mean_the_same_for_every_kind(name, process, x64):
  """weight x the kind's error = W |x0_hat - x0|^2 with the published W (density 3 for those that divide by it)."""
  process, (build, published) = PROCESSES[process](), WEIGHTS[name]
  t, (a, s, *_), truth, guess = at_random(process)
  want = published(a, s, slope(process, t)) * (guess[0] - truth[0]) ** 2
  for kind in kinds.__all__:
    weight = build()(process, as_kind(kind), t, jnp.full_like(t, 3.0))
    np.testing.assert_allclose(weight * error(process, kind, t, truth, guess), want, rtol=1e-5)


def test_published_special_cases():
  """min-SNR in eps space min(snr, g)/snr, in v space min(snr, g)/(snr + 1); EDM's weight is 1 for its own kind."""
  process = schedules.cosine()
  t = jnp.linspace(0.01, 0.99, 50)
  a, s = process.schedule(t)
  snr = (a / s) ** 2
  weight = weights.min_snr()
  np.testing.assert_allclose(weight(process, kinds.eps(), t, None), np.minimum(snr, 5) / snr, rtol=1e-5)
  np.testing.assert_allclose(weight(process, kinds.v(), t, None), np.minimum(snr, 5) / (snr + 1), rtol=1e-5)
  np.testing.assert_allclose(weights.edm(0.7)(process, kinds.edm(0.7), t, None), 1, rtol=1e-5)
  np.testing.assert_array_equal(weights.unit()(process, kinds.v(), t, None), np.ones(50))


@pytest.mark.parametrize('name', weights.__all__)
def test_weights_are_finite_at_the_ends(name):
  """Rectified flow reaches alpha = 0: the weight of the kinds that live there stays finite, whatever snr does."""
  process = schedules.flow()
  t = jnp.asarray([process.t_min, process.t_max])
  for kind in ('x0', 'v', 'velocity', 'edm'):
    if (name, kind) not in (('elbo', 'x0'), ('sigmoid', 'x0')):
      value = getattr(weights, name)()(process, as_kind(kind), t, times.uniform().density(process, t))
      assert np.isfinite(value).all() and (value >= 0).all(), kind


def test_bad_numbers_are_refused():
  with pytest.raises(ValueError, match='gamma: got 0; allowed'):
    weights.min_snr(0)
  with pytest.raises(ValueError, match='data_std: got -1; allowed'):
    weights.edm(-1)
