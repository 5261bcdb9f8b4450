"""Thresholds keep x0 in range and the pair consistent, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import schedules
from diffjax.guidance import cfg, chain, cost, dynamic_threshold, threshold
from diffjax.prediction import as_denoiser

PROCESSES = {'cosine': schedules.cosine, 'flow': schedules.flow, 'edm': schedules.edm}


def tripled(x, t, cond):
  return 3 * x


def base(process, null=None):
  return as_denoiser(tripled, process, 'x0', null)


X = jax.random.normal(jax.random.key(0), (5, 4, 3))


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('transform', [threshold, dynamic_threshold])
def test_pair_is_consistent(process, transform):
  """alpha x0 + sigma eps = x to float32 rounding of its terms, at every level."""
  process = PROCESSES[process]()
  t = jnp.linspace(0.01, 0.99, 5) * process.t_max
  for level in (t, t[2]):
    pred = transform(base(process))(X, level)
    assert np.abs(pred.x0).max() <= 1 + 1e-6
    np.testing.assert_allclose(process.perturb(pred.x0, pred.eps, level), X, rtol=2e-6, atol=2e-6)
  assert transform(base(process)).process is not None and cost(transform(base(process)), 0.5) == 1


def test_static_by_hand():
  pred = threshold(base(schedules.edm()), -0.5, 2.0)(X, 0.7)
  np.testing.assert_array_equal(pred.x0, np.clip(3 * X, -0.5, 2.0))
  np.testing.assert_allclose(pred.eps, (X - pred.x0) / 0.7, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('quantile', [0.5, 0.9, 1.0])
@pytest.mark.parametrize('floor', [0.01, 1.0, 5.0, 50.0])
def test_dynamic_by_hand(quantile, floor):
  """Per sample: s = max(floor, quantile of |x0|), clip to s, scale by floor / s (Imagen's form at floor 1)."""
  x0 = 3 * np.asarray(X, np.float64)
  s = np.maximum(np.quantile(np.abs(x0).reshape(5, -1), quantile, axis=1), floor)[:, None, None]
  pred = dynamic_threshold(base(schedules.flow()), quantile, floor)(X, 0.5)
  np.testing.assert_allclose(pred.x0, np.clip(x0, -s, s) * floor / s, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(pred.eps, (X - 0.5 * pred.x0) / 0.5, rtol=1e-5, atol=1e-6)
  if floor == 50:
    np.testing.assert_allclose(pred.x0, x0, rtol=1e-6)


@pytest.mark.parametrize('transform', [threshold, dynamic_threshold])
def test_jit_vmap_gradient_and_dtype(transform):
  denoise = transform(base(schedules.cosine()))
  t = jnp.float32(0.4)
  want = denoise(X, t).eps
  np.testing.assert_allclose(jax.jit(lambda denoise, x: denoise(x, t).eps)(denoise, X), want, rtol=1e-5, atol=1e-6)
  mapped = jax.vmap(lambda x: denoise(x[None], t).eps[0])(X)
  np.testing.assert_allclose(mapped, want, rtol=1e-5, atol=1e-6)
  grads = jax.grad(lambda x: jnp.sum(denoise(x, t).eps ** 2))(X)
  assert np.isfinite(grads).all() and np.abs(grads).max() > 0
  half = denoise(X.astype(jnp.bfloat16), t)
  assert half.x0.dtype == half.eps.dtype == jnp.bfloat16


def test_numbers_are_leaves_and_composition():
  count = 0

  @jax.jit
  def run(denoise, x):
    nonlocal count
    count += 1
    return denoise(x, 0.5, jnp.zeros(5, jnp.int32)).x0

  process = schedules.flow()
  for high in (1, 2.0):
    whole = chain(lambda d: cfg(d, 2.0, null=1), lambda d, high=high: threshold(d, -1, high))(base(process))
    assert np.abs(run(whole, X)).max() <= high and cost(whole, 0.5) == 2
  assert count == 1
  assert np.isfinite(run(cfg(dynamic_threshold(base(process, null=1)), 2.0), X)).all()


def test_bad_numbers_are_refused():
  denoise = base(schedules.flow())
  with pytest.raises(ValueError, match='low, high: got 1, 1'):
    threshold(denoise, 1, 1)
  with pytest.raises(ValueError, match='quantile: got 1.2'):
    dynamic_threshold(denoise, 1.2)
  with pytest.raises(ValueError, match='floor: got 0'):
    dynamic_threshold(denoise, floor=0)
