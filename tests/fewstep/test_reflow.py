"""Reflow: pairs of one flow make a straighter one, whose one step is the whole way."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classroom import GAUSSIAN, audit

from diffjax import exact, fewstep, keys, kinds, schedules, solvers
from diffjax.errors import InputError
from diffjax.fewstep.lessons import Line, paired
from diffjax.fewstep.reflow import ends
from diffjax.methods import Sampling, Source
from diffjax.solvers import grids
from experiments import ring as bench
from experiments.ring import closed, figures, ring, trained

FLOW, COSINE = schedules.flow(), schedules.cosine()
STD, MEAN = np.sqrt([0.3, 0.05]), np.array([0.7, -0.4])


class Coupled(NamedTuple):
  """The velocity of the coupling x0 = m + s z, of diagonal s: what reflow of a Gaussian must find."""

  def __call__(self, params, x, t, cond=None, key=None):
    t = (t / 1000)[:, None]
    z = (x - (1 - t) * params['m']) / ((1 - t) * jnp.exp(params['log_s']) + t)
    return z * (1 - jnp.exp(params['log_s'])) - params['m']

  def init(self, key, x, t, cond=None):
    return {'m': jnp.zeros(2), 'log_s': jnp.zeros(2)}


TRUE = {'m': jnp.asarray(MEAN, jnp.float32), 'log_s': jnp.asarray(np.log(STD), jnp.float32)}


def noise(n, seed=8):
  return keys.normal(keys.per_sample(jax.random.key(seed), n), jnp.zeros((n, 2)))


def parts(steps=300, process=FLOW, teacher=None, **options):
  teacher = closed(GAUSSIAN, COSINE) if teacher is None else teacher
  return bench.parts(GAUSSIAN, process, 'velocity', net=Coupled(), steps=steps, rate=0.05, teacher=teacher, **options)


def test_the_straight_flow_of_a_gaussian_costs_nothing():
  """v2(x, t) = z (1 - s) - m with z = (x - (1 - t) m) / ((1 - t) s + t), on exact pairs: no error at any t."""
  z = noise(64)
  x0 = exact.gaussian_flow(GAUSSIAN, FLOW, z, 1.0, 0.0)
  loss = paired(parts(), lambda *_: Line(x0, z, jnp.linspace(0, 1, 64), None))
  values, aux = loss({'student': TRUE}, {'x': jnp.full((64, 2), jnp.nan)}, jax.random.key(0))
  assert aux['error'].max() < 1e-11 and values.shape == (64,)
  assert loss({'student': jax.tree.map(lambda p: p + 0.1, TRUE)}, {'x': z}, jax.random.key(0))[0].min() > 1e-4


@pytest.mark.parametrize('rounds, distil', [(1, False), (2, True)])
def test_finds_the_teachers_map_and_keeps_it(rounds, distil):
  """From a teacher on another process, x0 = m + s z to .02 (twenty steps of the teacher are off by .01).

  Data are not read. One Euler step then is the map.
  """
  steps = 250 * (rounds + distil)
  method = fewstep.reflow(parts(steps), rounds=rounds, distil=distil, pool=256, fresh=16)
  roles = trained(method, GAUSSIAN.replace(means=GAUSSIAN.means * np.nan), steps, batch=64, decay=None)
  student = roles['student']
  np.testing.assert_allclose(student['m'], MEAN, atol=0.02)
  np.testing.assert_allclose(np.exp(student['log_s']), STD, atol=0.02)
  denoise, z = method.denoiser(roles), noise(64)
  one = solvers.sample(denoise, solvers.euler(FLOW, grids.uniform(FLOW, 1)), z)
  np.testing.assert_allclose(one, exact.gaussian_flow(GAUSSIAN, FLOW, z, 1.0, 0.0), atol=0.06)
  ts = grids.uniform(FLOW, 2)
  two = Sampling(2, lambda: ts, lambda: solvers.euler(FLOW, ts), lambda denoise: denoise)
  if distil:
    with pytest.raises(InputError, match='a grid uniform of 1 steps'):
      method.generator(roles, two)
  else:
    assert method.generator(roles, two).nfe == 2


def test_pairs_are_the_teachers_and_the_oldest_go():
  method = fewstep.reflow(parts(8), rounds=2, pool=8, fresh=4)
  pairs, tutors = (method.buffers[name] for name in ('pairs', 'tutor'))
  roles = {'student': TRUE, 'pairs': pairs.init(jax.random.key(0)), 'tutor': tutors.init(jax.random.key(0))}
  teacher = lambda z: ends(GAUSSIAN.denoiser(COSINE), solvers.dpmpp_2m(COSINE, grids.noise_share(COSINE, 20)), z)  # noqa: E731
  seen = []
  for i in range(6):
    roles['tutor'] = tutors.renew(roles, roles['tutor'], {}, jax.random.key(i))
    roles['pairs'] = pairs.renew(roles, roles['pairs'], {'x': jnp.zeros((2, 2))}, jax.random.key(i))
    seen.append(roles['pairs'])
  assert [int(p.held) for p in seen] == [4, 8, 8, 8, 4, 8]  # a new stage begins with the fifth
  np.testing.assert_allclose(seen[3].x, teacher(seen[3].z), atol=1e-5)
  np.testing.assert_array_equal(seen[2].z[4:], seen[1].z[4:])
  assert np.abs(seen[2].z[:4] - seen[1].z[:4]).min() > 0
  np.testing.assert_allclose(seen[5].x, MEAN + STD * np.asarray(seen[5].z), atol=2e-5)  # the tutor's: its line is exact
  np.testing.assert_allclose(seen[3].x, MEAN + STD * np.asarray(seen[3].z), atol=0.05)


def test_only_the_student_moves():
  source = Source('run', FLOW, (2,), 0, TRUE, lambda p: made.denoiser(p), kinds.as_kind('velocity'), Coupled())
  made = parts(4, teacher=source)
  method = fewstep.reflow(made, rounds=1, distil=True, pool=8, fresh=4)
  assert method.copies == {'student': 'teacher'}
  assert fewstep.reflow(parts(4, teacher=dataclasses.replace(source, process=COSINE))).copies == {}
  roles = {'teacher': TRUE, 'student': jax.tree.map(lambda p: p + 0.3, TRUE)}
  for name in ('tutor', 'pairs'):
    buffer = method.buffers[name]
    batch = {'x': noise(4)}
    roles[name] = buffer.renew({**roles, name: None}, buffer.init(jax.random.key(0)), batch, jax.random.key(1))
  moved = audit(method.phases[0].loss, roles, {'x': noise(16)})
  assert moved['teacher'] == moved['tutor'] == moved['pairs'] == 0 and moved['student'] > 1e-3


def test_refusals():
  for options, message in {
    (('rounds', 0),): 'rounds: got 0',
    (('pool', 10), ('fresh', 4)): 'pool, fresh: got 10, 4',
    (('scale', 2.0),): 'scale: got 2.0; allowed: 1, since data.classes is 0',
  }.items():
    with pytest.raises(InputError, match=message):
      fewstep.reflow(parts(), **dict(options))
  with pytest.raises(InputError, match='process: got one whose paths from data to noise are no lines; allowed: flow'):
    fewstep.reflow(parts(process=COSINE))


@pytest.mark.slow
def test_acceptance_on_the_ring():
  """Bounds of the specification: straightness <= .05, SW at one step <= .07, apart from eight steps by <= .03."""
  n, steps, target = 20000, 5000, ring()
  method = fewstep.reflow(bench.parts(target, FLOW, 'velocity', steps=steps), pool=16384, fresh=64, steps=40)
  roles = trained(method, target, steps, batch=256, decay=None)
  denoise, z = method.denoiser(roles), noise(n)
  draws = {k: solvers.sample(denoise, solvers.euler(FLOW, grids.uniform(FLOW, k)), z) for k in (1, 8)}
  one, eight = (figures(target, draws[k]) for k in (1, 8))
  x0, z = roles['pairs'].x, roles['pairs'].z
  t = jax.random.uniform(jax.random.key(2), (len(z),))
  pred = denoise(FLOW.perturb(x0, z, t), t)
  bend = float(jnp.mean(jnp.sum((z - x0 - (pred.eps - pred.x0)) ** 2, -1)))
  cost = float(jnp.mean(jnp.sum((z - x0) ** 2, -1)))
  print(f'reflow: S {bend:.4f}, cost {cost:.3f}, one step {one}, eight {eight}')
  assert bend <= 0.05 and one.sw <= 0.07 and abs(one.sw - eight.sw) <= 0.03 and cost <= 0.6
