"""Averages of any width from stored ones, against closed forms and the average tracked all along."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.train import ema
from diffjax.train.checkpoint import Checkpoints
from diffjax.train.posthoc import coefficients, from_checkpoints, inner, reconstruct

WIDTHS = 0.05, 0.1


def profile(t, width, tau):
  g = ema.gamma_of(width)
  return np.where(tau <= t, (g + 1) * (tau / t) ** g / t, 0)


def monomial(t, width, k):
  """The average of theta = tau^k, by its integral."""
  g = ema.gamma_of(width)
  return (g + 1) / (g + k + 1) * t**k


def stored(n, t=1.0):
  return [(t * (i + 1) / n, width) for i in range(n) for width in WIDTHS]


@pytest.mark.parametrize('a, b', [((0.4, 0.05), (1.0, 0.1)), ((1.0, 0.08), (0.7, 0.2)), ((0.9, 0.1), (0.9, 0.1))])
def test_inner_product_is_its_integral(a, b):
  """To 1e-6 relative, by Gauss-Legendre on [0, min t], where both are smooth."""
  nodes, weights = np.polynomial.legendre.leggauss(200)
  end = min(a[0], b[0])
  tau = end * (nodes + 1) / 2
  want = end / 2 * np.sum(weights * profile(*a, tau) * profile(*b, tau))
  assert abs(inner(a, b) / want - 1) < 1e-6
  assert inner(a, b) == pytest.approx(inner(b, a), rel=1e-12)


@pytest.mark.parametrize('wanted', [(1.0, 0.08), (1.0, 0.06), (1.0, 0.15), (0.75, 0.08)])
def test_powers_of_time(wanted):
  """theta = tau^k, whose averages are closed: within the bound of Cauchy and Schwarz, which itself is small.

  The error is at most rest |p| |theta|, |tau^k| = (2k + 1)^-1/2, and one part in 1e9 for float32 sums of float64.
  """
  profiles = stored(32)
  x, rest = coefficients(profiles, wanted)
  size = np.sqrt(inner(wanted, wanted))
  assert abs(x.sum() - 1) < 1e-9 and rest < 0.02
  trees = [{k: np.full(3, monomial(*p, k)) for k in (0, 1, 2, 5)} for p in profiles]
  for k, got in reconstruct(profiles, trees, wanted).items():
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, monomial(*wanted, k), atol=rest * size * (2 * k + 1) ** -0.5 + 1e-6)


def test_what_is_left_is_measured():
  """The remainder is the L2 distance of the profiles, by quadrature; more snapshots leave less."""
  nodes, weights = np.polynomial.legendre.leggauss(40)
  edges = np.linspace(0, 1, 9)
  tau = np.concatenate([lo + (hi - lo) * (nodes + 1) / 2 for lo, hi in zip(edges, edges[1:], strict=False)])
  each = np.tile(weights / 16, 8)
  wanted, profiles = (1.0, 0.08), stored(8)
  x, rest = coefficients(profiles, wanted)
  p = profile(*wanted, tau)
  distance = sum(c * profile(*q, tau) for c, q in zip(x, profiles, strict=True)) - p
  want = np.sqrt(np.sum(each * distance**2) / np.sum(each * p**2))
  assert rest == pytest.approx(want, rel=1e-3)
  assert coefficients(stored(32), wanted)[1] < rest


def test_the_end_should_be_a_stored_one():
  """A profile is cut off at its t; where no stored one is, a tenth of its norm at least cannot be had."""
  assert coefficients(stored(32), (0.8, 0.1))[1] > 0.1 > 10 * coefficients(stored(32), (0.8125, 0.1))[1]


def test_what_is_stored_is_found():
  """One of the stored averages: the coefficient 1 for it and 0 for the others; a copy among them does no harm."""
  profiles = stored(16)
  x, rest = coefficients(profiles, profiles[21])
  np.testing.assert_allclose(x, np.eye(32)[21], atol=1e-6)
  assert rest < 1e-6
  x, rest = coefficients([*profiles, profiles[21]], profiles[21])
  assert rest < 1e-6 and abs(x[21] + x[-1] - 1) < 1e-6


def tracked(theta, widths):
  """{(n, width): average} as training keeps it, float32, n from 1."""
  means, kept = dict.fromkeys(widths, np.float64(0)), {}
  gammas = {width: ema.gamma_of(width) for width in widths}
  for n, value in enumerate(theta, 1):
    for width in widths:
      means[width] += (1 - (1 - 1 / n) ** (gammas[width] + 1)) * (value - means[width])
      kept[n, width] = np.float32(means[width])
  return kept


def test_against_the_average_tracked_all_along():
  """arXiv:2312.02696 sec. 3.2: theta = sin(t / 50), 32 snapshots of a run, width .08 within 1e-2 of theta's deviation.

  1600 steps, so that the waves are about as long as the averages (t s = 128) and the snapshots close (50): there the
  claim has content. The profile integral is exact for a theta that stays put between updates, whatever their number.
  """
  n = 1600
  theta = np.sin(np.arange(1, n + 1) / 50)
  kept = tracked(theta, (*WIDTHS, 0.08))
  profiles = [(i * n // 32, width) for i in range(1, 33) for width in WIDTHS]
  got = reconstruct(profiles, (np.asarray(kept[p]) for p in profiles), (n, 0.08))
  assert abs(got - kept[n, 0.08]) < 1e-2 * theta.std()
  assert min(abs(kept[n, width] - kept[n, 0.08]) for width in WIDTHS) > 2e-2 * theta.std()  # neither of them would do


def test_published_exponents():
  """sigma_rel .05 and .10 are gamma 16.97 and 6.94 in the paper, .075 lies between; and back."""
  assert (round(ema.gamma_of(0.05), 2), round(ema.gamma_of(0.1), 2)) == (16.97, 6.94)
  assert ema.width_of(ema.gamma_of(0.075)) == pytest.approx(0.075, rel=1e-9)


def test_from_the_checkpoints_of_a_run(tmp_path):
  saver = Checkpoints(tmp_path / 'ck', max_to_keep=10)
  for step in range(10, 90, 10):
    kept = {f'power_{w:g}': {'w': jnp.full(2, monomial(step, w, 1))} for w in WIDTHS}
    saver.save({'ema': {'student': {**kept, '0.999': {'w': jnp.zeros(2)}}}, 'step': jnp.int32(step)}, step)
  saver.wait()
  _, rest = coefficients(stored(8, 80.0), (80.0, 0.08))
  bound = rest * np.sqrt(inner((80.0, 0.08), (80.0, 0.08))) * np.sqrt(80**3 / 3)
  got = from_checkpoints(saver, (80, 0.08))
  np.testing.assert_allclose(got['w'], monomial(80, 0.08, 1), atol=bound + 1e-4)
  with pytest.raises(ValueError, match="ema: got no power-function average of 'critic'"):
    from_checkpoints(saver, (80, 0.08), 'critic')
  saver.close()


def test_refused():
  for profiles, wanted, field in (
    ([], (1, 0.1), 'stored'),
    ([(0, 0.1)], (1, 0.1), 'stored'),
    ([(1, 0.1)], (2, 0.1), 'wanted'),
    ([(1, 0.1)], (1, 0.5), 'ema'),
  ):
    with pytest.raises(ValueError, match=f'^{field}: got .*allowed'):
      coefficients(profiles, wanted)
  with pytest.raises(ValueError):
    reconstruct([(1, 0.1), (2, 0.1)], [np.zeros(2)], (1, 0.1))
