"""Every kind of output on every process: target and predict are inverse, also in float32 at both ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import kinds, prediction, schedules
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser, apply_net, as_denoiser, complete, null_of, predict, target

PROCESSES = {
  **{name: getattr(schedules, name) for name in schedules.__all__ if name != 'shifted'},
  'shifted': lambda: schedules.shifted(schedules.flow(), 3.0),
}


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def pair(dtype, n=64):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(n, 3)), dtype), jnp.asarray(rng.normal(size=(n, 3)), dtype)


def grid(process, n=64):
  u = np.sin(np.linspace(0, np.pi / 2, n)) ** 2
  t = process.t_min + (process.t_max - process.t_min) * u
  return jnp.asarray(jnp.clip(t, process.t_min, process.t_max), process.t_max.dtype)


def there_and_back(process, kind, x0, eps, t):
  """What comes back, and the rounding to expect: |p||x| + |q||out| is what the sum p x + q out is made of."""
  x, out = process.perturb(x0, eps, t), target(process, kind, x0, eps, t)
  pred, form = predict(process, kind, x, t, out), kind(process, t)

  def size(row):
    return jnp.abs(row[0])[:, None] * jnp.abs(x) + jnp.abs(row[1])[:, None] * jnp.abs(out)

  return (pred.x0, size(form.x0)), (pred.eps, size(form.eps))


def recovered(process, kind, dtype):
  t = grid(process)
  if as_kind(kind).needs_signal:
    t = t[: int((process.schedule(t)[0] > 0).sum())]
  truth = pair(dtype, len(t))
  for want, (got, size) in zip(truth, there_and_back(process, as_kind(kind), *truth, t), strict=True):
    yield got, want, size


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('kind', kinds.__all__)
def test_predict_inverts_goal(process, kind, x64):
  for got, want, size in recovered(PROCESSES[process](), kind, jnp.float64):
    assert np.isfinite(got).all()
    np.testing.assert_array_less(np.abs(got - want), 1e-10 + 16 * 2.3e-16 * size)


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('kind', kinds.__all__)
def test_predict_inverts_goal_in_float32(process, kind):
  """x and out carry two roundings each, the coefficients about six, the sum one: 16 ulps of its terms at every t."""
  for got, want, size in recovered(PROCESSES[process](), kind, jnp.float32):
    assert np.isfinite(got).all()
    np.testing.assert_array_less(np.abs(got - want), 16 * 1.2e-7 * size + 1e-30)


@pytest.mark.parametrize('process', [name for name in PROCESSES if name not in ('ve', 'edm')])
def test_float32_ends_are_sharp(process):
  """v recovers both to 1e-5 anywhere (its system is orthogonal); eps the noise and x0 the signal exactly."""
  process = PROCESSES[process]()
  x0, eps = pair(jnp.float32)
  for t in (process.t_min, process.t_max):
    x = process.perturb(x0, eps, t)
    pred = predict(process, 'v', x, t, target(process, 'v', x0, eps, t))
    np.testing.assert_allclose(pred.x0, x0, atol=1e-5)
    np.testing.assert_allclose(pred.eps, eps, atol=1e-5)
    np.testing.assert_array_equal(predict(process, 'x0', x, t, x0).x0, x0)
    assert as_kind('eps').needs_signal
    if process.schedule(t)[0] > 0:
      np.testing.assert_array_equal(predict(process, 'eps', x, t, eps).eps, eps)


@pytest.mark.parametrize('process', PROCESSES)
def test_goals_say_what_their_names_say(process, x64):
  process = PROCESSES[process]()
  x0, eps = pair(jnp.float64)
  t = grid(process)[1:-1]
  x0, eps = x0[1:-1], eps[1:-1]
  alpha, sigma = (c[:, None] for c in process.schedule(t))
  want = {
    'x0': x0,
    'eps': eps,
    'v': alpha * eps - sigma * x0,
    'velocity': process.velocity(x0, eps, t),
    'score': -eps / sigma,
  }
  for kind, value in want.items():
    np.testing.assert_allclose(target(process, kind, x0, eps, t), value, rtol=1e-10, atol=1e-12)


def test_edm_kind_is_edm(x64):
  """arXiv:2206.00364 table 1 at alpha = 1, and unit variance of input and target on any process."""
  process, sd = schedules.edm(), 0.7
  kind = kinds.edm(sd)
  s = jnp.geomspace(0.002, 80, 20)
  form = kind(process, s)
  np.testing.assert_allclose(form.c_in, 1 / np.sqrt(s**2 + sd**2), rtol=1e-12)
  np.testing.assert_allclose(form.x0[0], sd**2 / (s**2 + sd**2), rtol=1e-12)
  np.testing.assert_allclose(form.x0[1], s * sd / np.sqrt(s**2 + sd**2), rtol=1e-12)
  np.testing.assert_allclose(form.network_time, np.log(s) / 4, rtol=1e-12)
  for build in PROCESSES.values():
    process = build()
    t = grid(process)
    alpha, sigma = process.schedule(t)
    form = kind(process, t)
    np.testing.assert_allclose(form.c_in**2 * (alpha**2 * sd**2 + sigma**2), 1, rtol=1e-10)
    np.testing.assert_allclose(form.target[0] ** 2 * sd**2 + form.target[1] ** 2, 1, rtol=1e-10)


@pytest.mark.parametrize('process', PROCESSES)
def test_complete_is_consistent(process):
  process = PROCESSES[process]()
  x0, eps = pair(jnp.float32)
  t = grid(process)
  x = process.perturb(x0, eps, t)
  other = jnp.tanh(x0)
  pred = complete(process, x, t, other, aux={'memory': 1})
  np.testing.assert_array_equal(pred.x0, other)
  assert pred.aux == {'memory': 1}
  np.testing.assert_allclose(process.perturb(pred.x0, pred.eps, t), x, rtol=1e-5, atol=1e-5)


def test_modalities_with_times_of_their_own(x64):
  process = schedules.flow()
  a, b = pair(jnp.float64)
  x0, eps = {'a': a, 'b': b[:, :, None]}, {'a': b, 'b': a[:, :, None]}
  t = {'a': jnp.linspace(0.1, 0.9, len(a)), 'b': jnp.asarray(0.5)}
  x = process.perturb(x0, eps, t)
  for kind in kinds.__all__:
    pred = predict(process, kind, x, t, target(process, kind, x0, eps, t))
    for name in x0:
      np.testing.assert_allclose(pred.x0[name], x0[name], atol=1e-10)
      np.testing.assert_allclose(pred.eps[name], eps[name], atol=1e-10)
      alone = target(process, kind, x0[name], eps[name], t[name])
      np.testing.assert_array_equal(target(process, kind, x0, eps, t)[name], alone)


def spy(params, x, t, cond, key):
  """A network that returns the time it is told, on x's shape."""
  return jnp.broadcast_to(t.reshape(-1, 1), x.shape) + params * x


def test_network_sees_scaled_input_and_its_clock():
  x, t = jnp.ones((2, 3)), jnp.asarray([0.25, 0.5])
  flow, edm = schedules.flow(), schedules.edm()
  np.testing.assert_allclose(apply_net(spy, 0.0, flow, kinds.v(), x, t)[:, 0], 1000 * t)
  np.testing.assert_allclose(apply_net(spy, 0.0, flow, kinds.v(), x, 0.25)[:, 0], [250, 250])
  np.testing.assert_allclose(apply_net(spy, 0.0, edm, kinds.v(), x, t)[:, 0], np.log(t) / 4, rtol=1e-6)
  told = apply_net(spy, 1.0, flow, kinds.edm(0.5), x, t)[:, 0]
  np.testing.assert_allclose(
    told, -np.log((1 - t) / t) / 4 + 1 / np.sqrt(0.25 * (1 - t) ** 2 + t**2), rtol=1e-6, atol=1e-6
  )


def shrink(x, t, cond):
  return x / (1 + t[:, None])


def test_functions_enter_as_denoisers():
  process = schedules.edm()
  denoise = as_denoiser(shrink, process, 'x0', null=3)
  x = jnp.ones((2, 3))
  pred = jax.jit(lambda d, x, t: d(x, t))(denoise, x, 2.0)
  np.testing.assert_allclose(pred.x0, x / 3, rtol=1e-6)
  np.testing.assert_allclose(pred.eps, (x - x / 3) / 2, rtol=1e-6)
  assert null_of(denoise) == 3 and denoise.process is process
  assert isinstance(denoise, prediction.Denoise)
  assert jax.tree.structure(denoise) == jax.tree.structure(as_denoiser(shrink, process, 'x0', null=3))


def test_dtype_of_x_is_kept():
  denoise = Denoiser(jnp.asarray(0.5), schedules.cosine(), kinds.v(), net=spy)
  pred = denoise(jnp.ones((2, 3), jnp.bfloat16), jnp.full((2,), 0.3, jnp.bfloat16))
  assert pred.x0.dtype == pred.eps.dtype == jnp.bfloat16


def test_unknown_kind_names_the_nearest():
  with pytest.raises(ValueError, match="kind: got 'velocty', nearest 'velocity'; allowed: x0, eps, v"):
    as_kind('velocty')
