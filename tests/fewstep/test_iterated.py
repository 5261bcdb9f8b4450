"""The generator of jumps, with the exact flow map of a Gaussian."""

from types import SimpleNamespace

import closed
import jax
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.iterated import iterated
from diffjax.methods import Sampling
from experiments.ring import parts


def made(process, ts, gamma, end=0.0, guided=lambda denoise: denoise, known=None):
  sampling = Sampling(
    len(ts), lambda: np.append(ts, 0.0), lambda: None, guided, SimpleNamespace(mean=closed.MEAN, std=closed.VAR**0.5)
  )
  own = parts(closed.target(), process, 'x0')
  return iterated(own, closed.jump(process, end), closed.right(), sampling, gamma, known)


@pytest.mark.parametrize('make', [lambda: schedules.edm(0.01, 10.0), schedules.cosine, schedules.flow])
def test_exact_jumps_compose_and_noise_keeps_the_law(make):
  """gamma 0: as one jump, whatever the levels. gamma .5 and 1: the mean and deviation of the data."""
  process = make()
  t, end = float(process.t_max), float(process.t_min)
  key = keys.per_sample(jax.random.key(0), 20_000)
  levels = (t, 0.7 * t, 0.3 * t, 0.1 * t)
  one = made(process, (t,), 0.0, end)(key)
  np.testing.assert_allclose(made(process, levels, 0.0, end)(key), one, atol=2e-3)
  for gamma in (0.5, 1.0):
    x = made(process, levels, gamma, end)(key)
    assert not np.allclose(x, one, atol=0.1)
    np.testing.assert_allclose([x.mean(), x.std()], [closed.MEAN, closed.VAR**0.5], atol=0.015)


def test_sample_k_is_its_own_and_the_way_is_shown(compiles):
  draw = made(schedules.cosine(), (0.9, 0.5, 0.2), 1.0)
  key = keys.per_sample(jax.random.key(0), 12)
  x, (points, clean) = draw.path(key)
  np.testing.assert_array_equal(x, draw(key))
  np.testing.assert_allclose(draw(key[3:7]), x[3:7], atol=1e-6)
  assert draw.nfe == draw.cost == 3 == len(points) == len(clean) and draw.times.shape == (3,)
  np.testing.assert_allclose(clean[-1], x, atol=1e-6)
  run = jax.jit(lambda draw, key: draw(key))
  run(draw, key)
  other = draw.replace(rows=jax.tree.map(lambda row: 0.9 * row, draw.rows))
  with compiles(0):
    run(other, key)


@pytest.mark.parametrize('rho', [3.0, 7.0])
def test_jumps_go_from_times_that_the_student_knows(rho):
  """The nearest ones of the ladder, each once, from t_max down; and the ladder is that of training."""
  process = schedules.cosine()
  known = pairs.nodes(process, 9, rho)
  np.testing.assert_allclose(known, pairs.Ladder(process, rho)(np.arange(1, 10) / 9), rtol=2e-4)
  t = float(process.t_max)
  two = made(process, (t, 0.5), 1.0, known=known).times
  level = np.asarray(process.lam(known.astype(np.float32)))
  np.testing.assert_allclose(two, [t, known[np.abs(level).argmin()]], rtol=1e-6)
  crowded = made(process, tuple(np.linspace(t, 0.45, 6)), 1.0, known=known).times
  assert (np.diff(crowded) < 0).all() and np.isin(crowded.astype(np.float32), known.astype(np.float32)).all()
  with pytest.raises(InputError, match='sampling.steps: got 10; allowed: at most 9'):
    made(process, tuple(np.linspace(t, 0.1, 10)), 1.0, known=known)


def test_refusals():
  edm = schedules.edm(0.01, 10.0)
  with pytest.raises(InputError, match='gamma: got 2'):
    made(edm, (10.0,), 2)
  with pytest.raises(InputError, match='guidance: got some; allowed: none'):
    made(edm, (10.0,), 1.0, guided=lambda denoise: (denoise,))
  with pytest.raises(InputError, match='grid: got a jump from 0.01'):
    made(edm, (10.0, 0.01), 1.0, end=0.01)
