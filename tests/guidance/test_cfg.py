"""Classifier-free guidance against what it samples in closed form, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import kinds, schedules
from diffjax.guidance import branches, cfg, chain, cost
from diffjax.prediction import Denoiser, Pred, predict

M = jnp.asarray([1.0, 0.0])  # means and variances with the condition (label 0) and without (label 1)
V = jnp.asarray([0.25, 1.25])
CALLS = []


def gaussians(params, x, t, cond, key):
  """Exact x0 of N(m, v) on the EDM process, told log(sigma)/4; counts its traces and the batch it is asked for."""
  CALLS.append(x.shape[0])
  m, v = params[0][cond], params[1][cond]
  sigma2 = jnp.exp(8 * t)
  return ((v * x[:, 0] + sigma2 * m) / (v + sigma2))[:, None]


@pytest.fixture
def pair():
  CALLS.clear()
  return Denoiser((M, V), schedules.edm(), kinds.x0(), null=1, net=gaussians)


def levels(n):
  """EDM's grid of n + 1 noise levels and 0."""
  return np.append((80 ** (1 / 7) + np.linspace(0, 1, n) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0)


@jax.jit
def evaluate(denoise, *arguments):
  return denoise(*arguments)


@jax.jit
def heun(denoise, x, steps):
  """The PF-ODE in sigma, dx/dsigma = eps, by Heun; Euler into 0."""

  def step(x, ends):
    t, s = ends
    cond = jnp.zeros(x.shape[0], jnp.int32)
    eps = denoise(x, t, cond).eps
    middle = x + (s - t) * eps
    last = s == 0
    again = denoise(middle, jnp.where(last, t, s), cond).eps
    return x + (s - t) * jnp.where(last, eps, (eps + again) / 2), None

  return jax.lax.scan(step, x, steps)[0]


def moments(denoise, n=64):
  """Mean and variance at t = 0 from N(0, 80^2): the map of Gaussian targets is affine, so two points tell it."""
  ts = jnp.asarray(levels(n), jnp.float32)
  low, high = np.asarray(heun(denoise, jnp.asarray([[-80.0], [80.0]]), (ts[:-1], ts[1:])), np.float64)[:, 0]
  return (low + high) / 2, ((high - low) / 2) ** 2


@pytest.mark.parametrize(
  ('scale', 'mean', 'var', 'slack'),
  [(1.0, 1.0, 0.25, 0.025), (1.5, 1.2099, 0.11180, 0.025), (2.0, 1.3228, 0.05, 0.025), (3.0, 1.4, 0.01, 0.05)],
)
def test_what_guidance_samples(scale, mean, var, slack, pair):
  """Of two Gaussians: variance v_c^w v_u^(1-w), means by quadrature; .012 of mean is mostly the start at sigma 80."""
  got = moments(cfg(pair, scale))
  assert abs(got[0] - mean) < 0.012
  assert abs(got[1] / var - 1) < slack


def test_limited_interval(pair):
  """Of two Gaussians: v_c [(v_c + lo^2)/(v_c + hi^2)]^(w-1) [(v_u + lo^2)/(v_u + hi^2)]^(1-w) = .06943, within 3%."""
  guided = cfg(pair, 2.0, interval=(0.2, 2.0))
  assert abs(moments(guided, 512)[1] / 0.06943 - 1) < 0.03
  ts = levels(64)
  assert [cost(guided, t) for t in (0.1, 0.2, 0.21, 2.0, 2.01)] == [1, 1, 2, 2, 1]
  inside = int(((0.2 < ts) & (ts <= 2)).sum())
  assert sum(cost(guided, t) for t in ts) == len(ts) + inside


def test_scale_one_is_the_conditional_model(pair):
  """To 2 ulps (the batch is twice as large); scale 0 is the unconditional one."""
  x = jnp.linspace(-3, 3, 7)[:, None]
  cond = jnp.zeros(7, jnp.int32)
  for t in (0.3, jnp.linspace(0.1, 5, 7)):
    for scale, label in ((1.0, 0), (0.0, 1)):
      got, want = cfg(pair, scale)(x, t, cond), pair(x, t, jnp.full(7, label))
      np.testing.assert_allclose(got.x0, want.x0, rtol=1e-6, atol=1e-6)
      np.testing.assert_allclose(got.eps, want.eps, rtol=1e-5, atol=1e-6)


def test_formula_and_consistency(pair):
  """u + w (c - u) in x0 and eps, so that alpha x0 + sigma eps = x; scales by number, sample or function of t."""
  x, t = jnp.linspace(-3, 3, 5)[:, None], jnp.linspace(0.2, 4, 5)
  c, u = (pair(x, t, jnp.full(5, label)) for label in (0, 1))
  scales = {'number': 2.5, 'sample': jnp.linspace(0, 4, 5), 'function': Partial(jnp.multiply, jnp.asarray(1.5))}
  for scale in scales.values():
    got = cfg(pair, scale)(x, t, jnp.zeros(5, jnp.int32))
    w = scale(t) if callable(scale) else scale
    w = jnp.broadcast_to(w, (5,))[:, None]
    np.testing.assert_allclose(got.x0, u.x0 + w * (c.x0 - u.x0), atol=1e-5)
    np.testing.assert_allclose(got.eps, u.eps + w * (c.eps - u.eps), atol=1e-5)
    np.testing.assert_allclose(got.x0 + t[:, None] * got.eps, x, atol=1e-5)


def test_per_sample_interval(pair):
  x, t = jnp.ones((4, 1)), jnp.asarray([0.1, 0.2, 1.0, 3.0])
  cond = jnp.zeros(4, jnp.int32)
  got = cfg(pair, 3.0, interval=(0.2, 2.0))(x, t, cond).x0
  plain, guided = pair(x, t, cond).x0, cfg(pair, 3.0)(x, t, cond).x0
  np.testing.assert_allclose(got, jnp.where(((t > 0.2) & (t <= 2.0))[:, None], guided, plain), rtol=1e-6)


def test_one_call_of_twice_the_batch(pair):
  x, cond = jnp.ones((3, 1)), jnp.zeros(3, jnp.int32)
  cfg(pair, 2.0)(x, 0.5, cond)
  assert CALLS == [6]
  CALLS.clear()
  cfg(pair, 2.0, interval=(0.2, 2.0))(x, 0.5, cond)  # both branches of the condition are traced
  assert sorted(CALLS) == [3, 6]
  assert cost(pair, 0.5) == 1 and cost(cfg(pair, 2.0), 0.5) == 2 and cost(cfg(cfg(pair, 2.0), 2.0), 0.5) == 4


def test_other_numbers_do_not_recompile(pair, compiles):
  run = jax.jit(lambda denoise, x, cond: denoise(x, 0.5, cond).x0)
  x, cond = jnp.ones((3, 1)), jnp.zeros(3, jnp.int32)
  built = [cfg(pair, w, interval=(0.1, 2)) for w in (2.0, 3, np.float32(4), jnp.asarray(5.0))]
  built.append(cfg(pair.replace(params=(M + 1, V)), 6.0, null=np.int32(1), interval=(0.2, 3.0)))
  run(built[0], x, cond)
  CALLS.clear()
  with compiles(0):
    values = [run(denoise, x, cond) for denoise in built]
  assert CALLS == []
  assert len({float(value[0, 0]) for value in values}) == len(values)


def test_samples_are_neighbours_in_the_batch():
  """Branches of a sample are adjacent, whatever the structure of x, t and conditions."""
  seen = {}

  class Spy:
    process = schedules.flow()

    def __call__(self, x, t, cond=None, memory=None):
      seen.update(x=x, t=t, cond=cond)
      return Pred(x, x, {'tap': cond['a'], 'memory': cond['a']})

  x = {'u': jnp.arange(3.0)[:, None], 'v': jnp.arange(6.0).reshape(3, 2)}
  a = jnp.arange(3) + 10
  preds, aux = branches(Spy(), x, {'u': 0.5, 'v': jnp.arange(3.0)}, tuple({'a': a + i} for i in (0, 100, 200)))
  np.testing.assert_array_equal(seen['x']['u'][:, 0], [0, 0, 0, 1, 1, 1, 2, 2, 2])
  np.testing.assert_array_equal(seen['cond']['a'], [10, 110, 210, 11, 111, 211, 12, 112, 212])
  np.testing.assert_array_equal(seen['t']['v'], [0, 0, 0, 1, 1, 1, 2, 2, 2])
  assert seen['t']['u'].shape == ()
  for pred in preds:
    np.testing.assert_array_equal(pred.x0['v'], x['v'])
  np.testing.assert_array_equal(aux['tap'], a)
  np.testing.assert_array_equal(aux['memory'], np.stack([a, a + 100, a + 200], 1))


class Counter:
  """Remembers, for each branch, the sum of the conditions it was evaluated under."""

  process = schedules.edm()
  null = 100

  def __call__(self, x, t, cond=None, memory=None):
    before = jnp.zeros(x.shape[0]) if memory is None else memory
    pred = predict(self.process, 'x0', x, t, 0 * x + before[:, None])
    return pred._replace(aux={'memory': before + cond})


def test_memory_is_kept_for_both_branches():
  """Inside the interval both branches move on, outside the conditional one alone."""
  guided = cfg(Counter(), 2.0, interval=(1.0, 2.0))
  x, cond = jnp.ones((2, 1)), jnp.asarray([1, 2])
  memory = guided(x, 1.5, cond).aux['memory']
  np.testing.assert_array_equal(memory, [[1, 100], [2, 100]])
  pred = guided(x, 3.0, cond, memory)
  np.testing.assert_array_equal(pred.aux['memory'], [[2, 100], [4, 100]])
  np.testing.assert_array_equal(pred.x0[:, 0], [1, 2])
  pred = guided(x, 2.0, cond, pred.aux['memory'])
  np.testing.assert_array_equal(pred.aux['memory'], [[3, 200], [6, 200]])
  np.testing.assert_array_equal(pred.x0[:, 0], [100 + 2 * (2 - 100), 100 + 2 * (4 - 100)])


@pytest.mark.slow
def test_jit_vmap_gradient_and_dtype(pair):
  x, cond = jnp.linspace(-2, 2, 6).reshape(2, 3, 1), jnp.zeros((2, 3), jnp.int32)
  guided = cfg(pair, 2.0, interval=(0.2, 2.0))
  plain = np.stack([evaluate(guided, x[i], 0.5, cond[i]).eps for i in range(2)])
  np.testing.assert_allclose(guided(x[0], 0.5, cond[0]).eps, plain[0], rtol=1e-5, atol=1e-6)
  mapped = jax.vmap(lambda x, t, c: guided(x, t, c).eps)(x, jnp.full(2, 0.5), cond)
  np.testing.assert_allclose(mapped, plain, rtol=1e-5, atol=1e-6)
  grads = jax.grad(lambda g, x: jnp.sum(g(x, 0.5, cond[0]).x0 ** 2), allow_int=True)(guided, x[0])
  assert np.isfinite(grads.scale) and grads.scale != 0
  half = guided(x[0].astype(jnp.bfloat16), jnp.float32(0.5), cond[0])
  assert half.x0.dtype == half.eps.dtype == jnp.bfloat16


def test_chain_applies_in_order():
  assert chain(lambda d: d + ['a'], lambda d: d + ['b'])([]) == ['a', 'b']
  assert chain()(3) == 3


def test_null_is_found_through_a_stack(pair):
  assert int(cfg(cfg(pair, 2.0), 3.0).null) == 1
  assert cfg(pair, 2.0).process is pair.process


def test_bad_input_is_refused(pair):
  with pytest.raises(ValueError, match='null: got None'):
    cfg(pair.replace(null=None), 2.0)
  with pytest.raises(ValueError, match=r'interval: got \(2, 1\)'):
    cfg(pair, 2.0, interval=(2, 1))
  with pytest.raises(ValueError, match='cond: got None'):
    evaluate(cfg(pair, 2.0), jnp.ones((2, 1)), 0.5)
