"""Analytic preconditioning: its two special cases, the measured gap of the ring, and methods that use it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, fewstep, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep.analytic import TABLE, analytic, curves, fitted, ways
from diffjax.fewstep.jumps import through
from diffjax.methods import Sampling
from diffjax.solvers import grids
from experiments import ring as bench
from experiments.ring import STD, edm, parts, ring

NET = nets.mlp(width=8, depth=1, times=2)
T, S = np.array([10.0, 9.0, 3.0, 0.7, 0.02, 1.0]), np.array([0.01, 8.8, 0.5, 0.69, 0.015, 1.0])
PAIRS = ((0, 160), (28, 160), (61, 160), (81, 160), (28, 61), (44, 103))  # of 161 times even in log t from 10 to .01
GAPS = dict(
  through=(0.907, 0.775, 0.327, 0.109, 0.280, 0.532),
  linear=(0.290, 0.283, 0.198, 0.220, 0.105, 0.341),
  growth=(0.313, 0.259, 0.179, 0.095, 0.151, 0.220),
  both=(0.315, 0.305, 0.208, 0.119, 0.105, 0.252),
)


def table(process, linear, growth, n=161):
  lam = jnp.linspace(process.lam(process.t_max), process.lam(process.t_min), n)
  t = process.lam_inverse(lam)
  return {'lam': lam, 'linear': linear(t), 'growth': growth(t)}


@pytest.mark.parametrize('kind', ['x0', 'edm'])
def test_without_curves_it_is_ddim(kind, x64):
  """l = r = 0: the coefficients of `through`, on EDM's process and on a variance preserving one; 1 and 0 at s = t."""
  for process in (edm(), schedules.cosine()):
    share = np.array([1.0, 0.9, 0.3, 0.07, 0.002, 0.1])
    t = float(process.t_max) * share
    s = jnp.asarray(np.maximum(t * np.array([0.001, 0.98, 0.2, 0.99, 0.75, 1.0]), float(process.t_min)))
    zero = table(process, jnp.zeros_like, jnp.zeros_like)
    form = kinds.as_kind(kind)
    got = analytic(zero)(process, form, jnp.asarray(t), s)
    np.testing.assert_allclose(got, through(process, form, jnp.asarray(t), s), rtol=1e-6, atol=1e-7)
    assert float(got[0][-1]) == 1 and float(got[1][-1]) == 0


def test_of_gaussian_data_it_is_the_flow(x64):
  """l = sd^2 / (sd^2 + t^2): g = 0 and A = sqrt((s^2 + sd^2) / (t^2 + sd^2)), to 1e-4; measured, the same curve."""
  process, var = edm(), 0.5
  made = table(process, lambda t: var / (var + t**2), jnp.zeros_like)
  form, kind = analytic(made), kinds.x0()
  a, b = form(process, kind, jnp.asarray(T), jnp.asarray(S))
  np.testing.assert_allclose(a + b * var / (var + T**2), np.sqrt((S**2 + var) / (T**2 + var)), atol=1e-6)
  denoise = exact.gaussian([0.0, 0.0], var).denoiser(process)
  measured = jax.jit(lambda: curves(denoise, (2,), points=41, samples=64))()
  t = process.lam_inverse(measured['lam'])
  np.testing.assert_allclose(measured['linear'], var / (var + t**2), atol=1e-6)


def test_the_gaps_of_the_ring():
  """rms |D(x_t) - D*|, D* the x0 of an exact jump: the table measured in NumPy, within 8 %; its two summaries."""
  process = edm()
  denoise = ring().denoiser(process)
  kind = kinds.x0()

  @jax.jit
  def gaps():
    ts, y, x0, trace = ways(denoise, (2,), 161, 2048)
    i, j = np.array(PAIRS).T
    t, s = ts[i], ts[j]

    def gap(form):
      a, b = form(process, kind, t, s)
      best = (y[j] - a[:, None, None] * y[i]) / b[:, None, None]
      return jnp.sqrt(jnp.mean(jnp.sum((x0[i] - best) ** 2, -1), -1))

    def form(linear, growth):
      return analytic(fitted(process.lam(ts), y, x0, trace, linear=linear, growth=growth))

    forms = dict(through=through, linear=form(True, False), growth=form(False, True), both=form(True, True))
    return {name: gap(form) for name, form in forms.items()}

  got = {name: np.asarray(values) for name, values in gaps().items()}
  for name, want in GAPS.items():
    np.testing.assert_allclose(got[name], want, rtol=0.08, err_msg=name)
  assert got['both'].mean() <= 0.55 * got['through'].mean() and (got['both'] <= 1.25 * got['through']).all()
  assert (got['growth'] < got['through']).all()


@pytest.mark.parametrize(
  'method', ['consistency_distillation', pytest.param('consistency_trajectory', marks=pytest.mark.slow)]
)
def test_methods_use_it(method):
  """With curves of zero the values are those of `through`; the table is moved by nobody and the generator has it."""
  net = NET if method == 'consistency_trajectory' else nets.mlp(width=8, depth=1)
  made = parts(ring(), edm(), kinds.edm(STD), net=net, steps=40)
  form = dict(name='analytic', points=21, samples=16)
  own, plain = (getattr(fewstep, method)(made, form=form) for form in (form, 'through'))
  roles = dict(jax.jit(own.init)(jax.random.key(0)))
  assert set(roles) == {'student', TABLE} and set(own.copies) == {'target'}
  roles['student'] = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), roles['student'])
  roles['target'] = roles['student']
  value = jax.jit(lambda method, roles: method(roles, {'x': ring().means}, jax.random.key(4))[0], static_argnums=0)
  zero = roles | {TABLE: {'lam': roles[TABLE]['lam'], 'linear': jnp.zeros(21), 'growth': jnp.zeros(21)}}
  ours, theirs = own.phases[0].loss, plain.phases[0].loss
  np.testing.assert_allclose(value(ours, zero), value(theirs, roles), rtol=1e-3, atol=1e-6)
  assert not np.allclose(value(ours, roles), value(theirs, roles), rtol=0.05)
  assert all(phase.role == 'student' for phase in own.phases)
  draw = own.generator(roles, Sampling(1, lambda: np.array([10.0, 0.0]), lambda: None, lambda denoise: denoise))
  t, s = jnp.asarray([3.0]), jnp.asarray([0.5])
  np.testing.assert_allclose(
    draw.jump.form(edm(), kinds.x0(), t, s), analytic(roles[TABLE])(edm(), kinds.x0(), t, s), rtol=1e-6
  )


def test_refusals():
  made = parts(ring(), edm(), kinds.edm(STD), net=NET, steps=40)
  for form in ('other', dict(name='through', points=3), dict(name='analytic', width=3)):
    with pytest.raises(InputError, match='form: got'):
      fewstep.consistency_trajectory(made, form=form)
  with pytest.raises(InputError, match='form: got analytic; allowed: through, without a teacher'):
    fewstep.consistency_trajectory(made, form='analytic', taught_by='self')


@pytest.mark.slow
def test_it_learns_in_fewer_steps():
  """CTM on the ring at 4 jumps: in two thirds of the steps at least as near as without, sliced W2 (+ .003)."""
  ladder = tuple(grids.karras(edm(), 4, to_zero=False)[:-1])
  got = {}
  for name, steps in (('through', 1800), ('analytic', 1200)):
    made = parts(ring(), edm(), kinds.edm(STD), net=nets.mlp(width=128, depth=3, times=2), steps=steps)
    method = fewstep.consistency_trajectory(made, form=name)
    roles = bench.trained(method, ring(), steps)
    got[name] = bench.figures(ring(), bench.drawn(method, roles, ladder)).sw
  assert got['analytic'] <= got['through'] + 0.003, got
