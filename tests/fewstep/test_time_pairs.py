"""Laws of times against their closed forms, and curricula that are data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.consistency import Scheduled
from diffjax.losses.times import uniform
from diffjax.solvers import grids

KEYS = keys.per_sample(jax.random.key(0), 40_000)


def drawn(law, process, progress=0):
  return jax.tree.map(np.asarray, jax.jit(law)(process, jnp.asarray(progress), KEYS))


@pytest.mark.parametrize('make', [schedules.edm, schedules.cosine, schedules.vp_linear])
def test_the_ladder_is_the_grid_of_karras(make, x64):
  process = make()
  want = grids.karras(process, 17, to_zero=False)
  np.testing.assert_allclose(pairs.Ladder(process)(jnp.arange(18)[::-1] / 17), want, rtol=1e-9)


def test_neighbours_are_neighbours_evenly(x64):
  process = schedules.edm()
  ts = grids.karras(process, 17, to_zero=False)[::-1]
  at = drawn(pairs.neighbours(pairs.constantly(17)), process)
  i = np.abs(at.t[:, None] - ts).argmin(1)
  np.testing.assert_allclose(at.t, ts[i], rtol=1e-9)
  np.testing.assert_allclose(at.u, ts[i - 1], rtol=1e-9)
  assert (at.s == float(process.t_min)).all()
  share = np.bincount(i, minlength=18)[1:] / len(i)
  assert np.abs(share - 1 / 17).max() < 4 * np.sqrt(1 / 17 / len(i))


def test_normal_ranks_have_the_published_law(x64):
  """p(i) ~ erf((log t_{i+1} - P) / (sqrt 2 S)) - erf((log t_i - P) / (sqrt 2 S)), arXiv:2310.14189 sec. 3.5."""
  process, mean, std, n = schedules.edm(), -1.1, 2.0, 10
  ts = grids.karras(process, n, to_zero=False)[::-1]
  p = np.diff(erf((np.log(ts) - mean) / (np.sqrt(2) * std)))
  p /= p.sum()
  at = drawn(pairs.neighbours(pairs.constantly(n), normal=(mean, std)), process)
  share = np.bincount(np.abs(at.t[:, None] - ts).argmin(1), minlength=n + 1)[1:] / len(at.t)
  assert (np.abs(share - p) < 4 * np.sqrt(p / len(at.t)) + 1e-9).all()


def test_curricula_as_published():
  """N(k) of both papers by their formulas in whole numbers, and mu(k) of the first."""
  steps = 400_000
  count = pairs.doubling(10, 1280, steps)
  period = int(np.floor(steps / (np.log2(np.floor(1280 / 10)) + 1)))
  for k in (0, period - 1, period, 3 * period, 7 * period, steps - 1):
    assert float(count(jnp.asarray(k))) == min(10 * 2 ** (k // period), 1280), k
  assert float(count(jnp.asarray(steps - 1))) == 1280
  square = pairs.square_root(2, 150, 800)
  for k in (0, 1, 400, 799):
    assert float(square(jnp.asarray(k))) == max(np.ceil(np.sqrt(k / 800 * (151**2 - 4) + 4) - 1), 1), k
  rate = Scheduled(2, 0.9, square)
  for k in (0, 400):
    n = max(np.ceil(np.sqrt(k / 800 * (151**2 - 4) + 4) - 1), 1)
    np.testing.assert_allclose(rate.rate(k + 1), 1 - np.exp(2 * np.log(0.9) / n), rtol=1e-4)


def test_triples(x64):
  """Probabilities of the number of intervals ~ its size where the ladder does not cut it off; s even below u."""
  n, most = 12, 4
  process = schedules.edm()
  ts = grids.karras(process, n, to_zero=False)[::-1]
  place = lambda t: np.abs(t[:, None] - ts).argmin(1)  # noqa: E731
  t, u, s = map(place, drawn(pairs.triples(n, most=most), process))
  assert ((t > u) & (u >= s) & (t - u <= most)).all()
  whole = t >= most
  share = np.bincount((t - u)[whole], minlength=most + 1)[1:] / whole.sum()
  p = np.arange(1, most + 1) / np.arange(1, most + 1).sum()
  assert (np.abs(share - p) < 4 * np.sqrt(p / whole.sum())).all()
  below = np.bincount(s[u == 5], minlength=6)[:6] / (u == 5).sum()
  assert (np.abs(below - 1 / 6) < 4 * np.sqrt(1 / 6 / (u == 5).sum())).all()


def test_dyadic_and_ordered():
  flow = schedules.flow()
  t, u, s = drawn(pairs.dyadic(7), flow)
  step = t - s
  assert set(np.log2(step)) == {-k for k in range(7)} and (u == s + step / 2).all() and (t / step % 1 == 0).all()
  t, u, s = drawn(pairs.dyadic(7, finest=True), flow)
  assert (t - s == 2.0**-7).all() and (u == s).all() and s.min() == 0 and t.max() == 1
  t, u, s = drawn(pairs.ordered(uniform(), equal=0.75), flow)
  assert (t == u).all() and (s <= t).all()
  assert abs((s == t).mean() - 0.75) < 4 * np.sqrt(0.1875 / len(t))
  np.testing.assert_allclose(t.mean(), 2 / 3, atol=0.01)  # the later of two uniform draws


def test_refusals():
  for make, message in (
    (lambda: pairs.constantly(0), 'intervals: got 0'),
    (lambda: pairs.triples(4, most=5), 'most: got 5; allowed: 1 to the 4 intervals'),
    (lambda: pairs.dyadic(0), 'depth: got 0'),
    (lambda: pairs.ordered(equal=2.0), 'equal: got 2.0'),
  ):
    with pytest.raises(InputError, match=message):
      make()
