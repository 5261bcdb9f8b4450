"""Bridges: their coefficients, the pair's two ends, DBIM's measured errors on a closed form, and their students.

Bench: y ~ N(0, 1), x0 = y / 2 +- 1 + N(0, .04), beta(t) = .1 + 2 t. In one dimension the flow of the bridge from
t_max - gap is the quantile map, so that every student has a closed form.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from diffjax import exact, fewstep, keys, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep.bridge import bridge, coefficients
from diffjax.fewstep.consistency_bridge import Bridged
from diffjax.fewstep.jumps import transfer_of
from diffjax.methods import Sampling, Source
from diffjax.prediction import complete
from diffjax.pytree import PyTree
from diffjax.train.ema import constant
from diffjax.train.step import init_state, make_train_step
from experiments.ring import parts

VP = schedules.vp_linear(0.1, 2.1)
GAP, SLOPE, VAR = 1e-3, 0.5, 0.04
ACROSS = bridge(VP, GAP)
MODES = exact.mixture([0.5, 0.5], [[-1.0], [1.0]], np.full(2, VAR))
NET = nets.mlp(width=8, depth=1)


class OfPairs(PyTree):
  """The exact denoiser of the bridge in shifted points."""

  process: object

  def __call__(self, x, t, cond=None, memory=None):
    y = SLOPE * cond['source']
    b, c = self.process.schedule(jnp.broadcast_to(t, (len(x),)))
    x0 = y + MODES.predict(x - b[:, None] * y, b, c).x0
    return complete(self.process, x, t, x0)


def made(net=NET, steps=40, **changes):
  own = parts(MODES, VP, kinds.edm(1.0), net=net, steps=steps, **changes)
  denoise = OfPairs(ACROSS)
  teacher = Source('pairs', VP, (1,), 0, (), lambda _: denoise)
  return dataclasses.replace(own, others={'source': (1,)}, teacher=teacher)


def flow(z, y, end=float(VP.t_min)):
  """The quantile map from the first point, b y / 2 + b (+- 1 + .2 e) + c z in shifted points, to x_end."""

  def cdf(x, b, c):
    return np.mean([ndtr((x - b * m) / np.sqrt(b**2 * VAR + c**2)) for m in (-1, 1)], 0)

  (_, b, c), (a_end, b_end, c_end) = (
    map(float, coefficients(VP, t)) for t in (jnp.asarray(float(VP.t_max) - GAP), jnp.asarray(end))
  )
  # the first point is b D + c z with D = y / 2, that of the mixture at 0
  rank = cdf(c * z, b, c)
  low, high = np.full_like(z, -4.0), np.full_like(z, 4.0)
  for _ in range(50):
    middle = (low + high) / 2
    less = cdf(middle, b_end, c_end) < rank
    low, high = np.where(less, middle, low), np.where(less, high, middle)
  return a_end * y + b_end * SLOPE * y + (low + high) / 2


def test_the_bridge_is_the_process_given_its_two_ends(x64):
  """x_t given x0 and x_T = y by conditioning the two Gaussians; its lam is inverted; its ends are x0 and y."""
  t = jnp.asarray([0.03, 0.2, 0.6, 0.9, 0.99])
  for process in (VP, schedules.ve(0.01, 3.0)):
    t_max = float(process.t_max)
    (alpha, sigma), (alpha_end, sigma_end) = process.schedule(t * t_max), process.schedule(jnp.asarray(t_max, float))
    ratio = alpha_end / alpha  # x_T given x_t: N(ratio x_t, sigma_T^2 - ratio^2 sigma^2)
    gain = sigma**2 * ratio / sigma_end**2
    a, b, c = coefficients(process, t * t_max)
    np.testing.assert_allclose(a, gain, rtol=1e-9)
    np.testing.assert_allclose(b, alpha - gain * alpha_end, rtol=1e-9)
    np.testing.assert_allclose(c**2, sigma**2 - gain * ratio * sigma**2, rtol=1e-9)
    across = bridge(process, 1e-3 * t_max)
    np.testing.assert_allclose(across.schedule(t * t_max), (b, c), rtol=1e-12)
    np.testing.assert_allclose(across.lam_inverse(across.lam(t * t_max)), t * t_max, rtol=1e-6)
  np.testing.assert_allclose(coefficients(VP, VP.t_max), (1, 0, 0), atol=1e-12)
  np.testing.assert_allclose(coefficients(VP, 0.0), (0, 1, 0), atol=1e-12)


def test_a_step_with_the_data_is_the_bridge_itself(x64):
  """From x_t to x_s with x0 and y known, at the same noise; a jump from the end leads nowhere."""
  rng = np.random.default_rng(0)
  x0, y, eps = rng.standard_normal((3, 6))
  t, s = jnp.asarray([0.999, 0.9, 0.5, 0.3, 0.1, 0.01]), jnp.asarray([0.6, 0.1, 0.4, 0.001, 0.02, 0.001])
  (a, b, c), (a_s, b_s, c_s) = coefficients(VP, t), coefficients(VP, s)
  keep, gain = transfer_of(bridge(VP), t, s)
  x = a * y + b * x0 + c * eps
  np.testing.assert_allclose(a_s * y + keep * (x - a * y) + gain * x0, a_s * y + b_s * x0 + c_s * eps, rtol=1e-9)
  method = fewstep.consistency_bridge_training(made())
  draw = method.generator({'student': {}}, sampling((1.0,)))
  process, end = draw.jump.process, jnp.full((3,), VP.t_min)
  np.testing.assert_array_equal(draw.jump.form(process, draw.jump.kind, end, end), [np.ones(3), np.zeros(3)])


def sampling(ts):
  return Sampling(len(ts), lambda: np.append(ts, 0.0), lambda: None, lambda denoise: denoise)


def latents(n, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((2, n, 1))


def told(params, x, t, cond, key):
  """The exact x0 of a bridge as a network of kind x0, told the process's own time."""
  return OfPairs(ACROSS)(x, t, cond).x0


def exactly(ts, gamma):
  """The generator of a denoiser that is exact: DBIM without noise at gamma 0."""
  draw = fewstep.bridge_denoising(made()).generator({'student': ()}, sampling(ts))
  jump = draw.jump.replace(kind=kinds.x0().plain(), net=told)
  assert isinstance(draw, Bridged) and draw.nfe == len(ts) + 1
  return draw.replace(jump=jump)


def test_the_errors_of_dbim():
  """rmse to the quantile map at 1 step and at 4, 16, 64 even in t: those measured in float64, within 8 %."""
  z, y = latents(4096)
  for n, want in ((1, 0.977), (4, 0.125), (16, 0.036), (64, 0.010)):
    ts = np.linspace(1, float(VP.t_min), n + 1)[:-1]
    got = jax.jit(lambda draw: draw.decode(jnp.asarray(z, jnp.float32), {'source': jnp.asarray(y, jnp.float32)}))(
      exactly(tuple(ts), 0.0)
    )
    rmse = float(np.sqrt(np.mean((np.asarray(got) - flow(z, y)) ** 2)))
    np.testing.assert_allclose(rmse, want, rtol=0.08 if n < 64 else 0.15, err_msg=str(n))


def test_the_latent_is_the_sample_at_fixed_y():
  """y = 0: monotone in z, with the switch of modes at 0; so the oracle is that of the published fixture."""
  z = np.linspace(-2, 2, 9)
  want = [-1.338, -1.222, -1.095, -0.940, 0, 0.940, 1.095, 1.222, 1.338]
  np.testing.assert_allclose(flow(z, 0 * z), want, atol=6e-3)


def batch(n=64):
  z, y = latents(n, seed=1)
  sign = np.sign(z)
  x = SLOPE * y + sign + 0.2 * np.random.default_rng(2).standard_normal((n, 1))
  return {name: jnp.asarray(v, jnp.float32) for name, v in (('x', x), ('source', y))}


@pytest.mark.parametrize('name', ['bridge_denoising', 'consistency_bridge_distillation', 'consistency_bridge_training'])
def test_only_the_student_is_moved_and_y_is_seen(name):
  """The gradient in every other role is zero; another y makes another loss; the labels' field is free."""
  method = getattr(fewstep, name)(made())
  assert method.needs == method.conditions == ('source',)
  params = jax.tree.map(lambda p: p + 0.2, method.init(jax.random.key(0))['student'])
  roles = {'student': params, **{role: jax.tree.map(lambda p: 0.9 * p, params) for role in method.copies}}
  buffers = {name: jnp.asarray(3) for name in method.buffers}
  mean = lambda roles, rows: jnp.mean(method.phases[0].loss(roles | buffers, rows, jax.random.key(1))[0])  # noqa: E731
  value, grads = jax.jit(jax.value_and_grad(mean))(roles, batch())
  size = {role: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(g)) for role, g in grads.items()}
  assert np.isfinite(float(value)) and size.pop('student') > 0 and not any(size.values())
  other = jax.jit(mean)(roles, batch() | {'source': batch()['source'][::-1]})
  assert not np.isclose(value, other, rtol=1e-3)


def test_refusals():
  own = made()
  with pytest.raises(InputError, match='data.others: got {}; allowed: source of the shape of x'):
    fewstep.consistency_bridge_training(dataclasses.replace(own, others={}))
  with pytest.raises(InputError, match='given: got'):
    fewstep.consistency_bridge_training(made(net=nets.dit('S')))
  with pytest.raises(InputError, match='process: got one whose alpha'):
    fewstep.consistency_bridge_training(dataclasses.replace(own, process=schedules.flow()))
  with pytest.raises(InputError, match='gap: got 2'):
    fewstep.consistency_bridge_training(own, gap=2.0)
  draw = fewstep.consistency_bridge_training(own).generator({'student': {}}, sampling((1.0,)))
  with pytest.raises(InputError, match='cond: got no source'):
    draw.check_cond(None)


def trained(method, steps, rows=512, seed=0):
  ema = (constant(0.999),)
  move = make_train_step(method, ema)

  def drawn(key):
    k_y, k_x = jax.random.split(key)
    y = jax.random.normal(k_y, (rows, 1))
    return {'x': SLOPE * y + MODES.sample(keys.per_sample(k_x, rows)), 'source': y}

  @jax.jit
  def run(key):
    state = init_state(method, method.init(key), key, jax.eval_shape(drawn, key), ema)
    one = lambda state, i: (move(state, drawn(jax.random.fold_in(key, i)), (0,))[0], None)  # noqa: E731
    return jax.lax.scan(one, state, jnp.arange(steps))[0]

  state = run(jax.random.key(seed))
  return {**state.roles, 'student': state.ema['student'][ema[0].name]}


MISSED = pytest.mark.xfail(strict=True, raises=AssertionError, reason='rmse .158, W1 .087')


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['consistency_bridge_distillation', pytest.param('consistency_bridge_training', marks=MISSED)]
)
def test_two_evaluations(name):
  """rmse to the quantile map <= .12, which DBIM needs 8 steps for in lam; W1 of samples at y = 0 <= .06; z decoded."""
  steps = 4000
  options = {} if name.endswith('distillation') else dict(distance=dict(name='pseudo_huber', c=0.1))
  own = made(net=nets.mlp(width=96, depth=3), steps=steps)
  method = getattr(fewstep, name)(own, **options)
  draw = method.generator(trained(method, steps), sampling((1.0,)))
  assert draw.nfe == 2
  decode = jax.jit(lambda z, y: draw.decode(z, {'source': y}))
  z, y = latents(4096)
  got = np.asarray(decode(jnp.asarray(z, jnp.float32), jnp.asarray(y, jnp.float32)))
  rmse = float(np.sqrt(np.mean((got - flow(z, y)) ** 2)))
  at_zero = np.sort(np.asarray(decode(jnp.asarray(z, jnp.float32), jnp.zeros((4096, 1))))[:, 0])
  data = np.sort(np.asarray(MODES.sample(keys.per_sample(jax.random.key(9), 4096)))[:, 0])
  w1 = float(np.mean(np.abs(at_zero - data)))
  print('two evaluations', name, rmse, w1)
  assert rmse <= 0.12 and w1 <= 0.06, (rmse, w1)
