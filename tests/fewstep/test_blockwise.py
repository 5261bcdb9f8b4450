"""Blockwise flow matching: a network a segment, features told and spared, a ring by small networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, keys, nets, schedules, solvers
from diffjax.errors import InputError
from diffjax.fewstep import blockwise
from diffjax.fewstep.blockwise import tokens_of
from diffjax.methods import Sampling
from diffjax.metrics import digits
from diffjax.prediction import predict
from diffjax.solvers import grids
from experiments import ring as bench
from experiments.ring import parts, ring

FLOW = schedules.flow()
DIT = nets.dit('S', patch=2, depth=1, width=8, heads=2)


def points(segments=4, width=8, steps=40, depth=1):
  made = parts(ring(), FLOW, 'velocity', net=nets.mlp(width=width, depth=depth), steps=steps)
  return fewstep.blockwise_flow_matching(made, segments=segments), made


def images(**options):
  made = dataclasses.replace(parts(ring(), FLOW, 'velocity', net=DIT, steps=40), shape=(4, 4, 1))
  return fewstep.blockwise_flow_matching(made, segments=2, features=8, feature_depth=1, **options), made


def moved(tree, by=0.3):
  leaves, treedef = jax.tree.flatten(tree)
  ks = jax.random.split(jax.random.key(8), len(leaves))
  return treedef.unflatten([leaf + by * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, ks, strict=True)])


@pytest.mark.slow
def test_each_row_is_one_segments():
  """Rows are split evenly, each in its half-open segment; its error moves the network of that segment alone."""
  method, made = points()
  roles, batch = moved(method.init(jax.random.key(0))), {'x': ring().means}
  loss = jax.jit(lambda roles: method.phases[0].loss(roles, batch, jax.random.key(1)))
  values, aux = loss(roles)
  m = np.repeat(np.arange(4), 2)
  t = np.asarray(aux['t'])
  assert (t > m / 4).all() and (t <= (m + 1) / 4).all()
  rows = jax.jit(jax.jacrev(lambda roles: loss(roles)[0]))(roles)['student']['segments']
  for leaf in jax.tree.leaves(rows):  # (rows, segments, ...)
    size = np.abs(np.asarray(leaf)).reshape(8, 4, -1).sum(-1)
    assert not size[m[:, None] != np.arange(4)].any()
  assert all(np.abs(np.asarray(rows['out'][name]))[np.arange(8), m].sum() > 0 for name in ('kernel', 'bias'))
  ks = keys.split(keys.per_sample(jax.random.key(1), 8), 2)
  eps = keys.normal(ks[1], batch['x'])
  x = FLOW.perturb(batch['x'], eps, aux['t'])
  out = method.denoiser(roles)
  v = (x - out(x, aux['t']).x0) / t[:, None]
  np.testing.assert_allclose(np.mean((v - (eps - batch['x'])) ** 2, -1), values, rtol=2e-3)
  with pytest.raises(InputError, match=r'train.batch: got 8; allowed: a multiple of the 3 segments'):
    other = points(segments=3)[0]
    other.phases[0].loss(other.init(jax.random.key(0)), batch, jax.random.key(1))


@pytest.mark.slow
def test_segments_are_half_open_at_their_ends():
  """(tau_m, tau_{m+1}], also where a grid's times are rounded; a number t and a batch of it agree."""
  method, _ = points(segments=6)
  denoise = method.denoiser(moved(method.init(jax.random.key(0))))
  ends = jnp.arange(1, 7) / 6
  np.testing.assert_array_equal(denoise.segment(ends), np.arange(6))
  np.testing.assert_array_equal(denoise.segment(ends[:-1] + 1e-3), np.arange(1, 6))
  np.testing.assert_array_equal(
    denoise.segment(jnp.asarray(grids.uniform(FLOW, 12)[:-1])), np.repeat(range(6), 2)[::-1]
  )
  x = jnp.asarray(ring().means)
  np.testing.assert_allclose(denoise(x, 0.4).x0, denoise(x, jnp.full((8,), 0.4)).x0, rtol=1e-5, atol=1e-6)


@pytest.mark.slow  # two Jacobians of four networks to compile
def test_features_are_moved_by_their_losses():
  """Cosine to the encoder's; what spares them moves alone, and is at rest itself where they are found."""
  encode = lambda x: jnp.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], -1)[:, None].repeat(4, 1)  # noqa: E731
  blockwise.ENCODERS['test'] = encode
  try:
    method, made = images(encoder='test', residual_depth=1, align=0.5)
  finally:
    del blockwise.ENCODERS['test']
  assert [phase.role for phase in method.phases] == ['student', 'residual'] == list(method.averaged)
  roles = moved(jax.jit(method.init)(jax.random.key(0)))
  batch = {'x': jax.random.normal(jax.random.key(5), (4, 4, 4, 1))}

  def both(roles):
    (matching, aux), (sparing, _) = (phase.loss(roles, batch, jax.random.key(1)) for phase in method.phases)
    return jnp.mean(matching), jnp.mean(sparing), aux

  first, second = jax.jit(jax.jacrev(lambda roles: both(roles)[:2]))(roles)
  size = lambda tree: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(tree))  # noqa: E731
  assert all(size(first['student'][name]) > 0 for name in ('segments', 'features', 'compared'))
  assert size(first['residual']) == 0 and size(second['student']) == 0 and size(second['residual']) > 0
  value, _, aux = jax.jit(both)(roles)
  np.testing.assert_allclose(value, jnp.mean(aux['error'] - 0.5 * aux['alignment']), rtol=1e-6)
  assert (np.abs(aux['alignment']) <= 1).all()


@pytest.mark.slow
def test_features_are_found_once_a_segment():
  """At its first time they are f's; later those and a share of r, 0 there and 1 at its end; without r always f's."""
  method, made = images(align=0.0, residual_depth=1)
  roles = moved(jax.jit(method.init)(jax.random.key(0)))
  denoise = method.denoiser(roles)
  net, features, spare = denoise.nets
  x = jax.random.normal(jax.random.key(5), (3, 4, 4, 1))
  told = lambda t: jnp.full((3,), 1000 * t)  # noqa: E731

  @jax.jit
  def run():
    seen, memory = [], None
    blank = jax.tree.map(jnp.zeros_like, denoise(x, 1.0).aux['memory'])
    memory = blank
    for t in (1.0, 0.7, 0.5):
      pred = denoise(x, t, None, memory)
      memory = pred.aux['memory']
      seen.append(pred.x0)
    f = [tokens_of(features, roles['student']['features'], x, told(t), None) for t in (1.0, 0.5)]
    later = f[0] + 0.6 * tokens_of(spare, roles['residual'], x, told(0.7), None)

    def want(m, t, f):
      out = net(jax.tree.map(lambda p: p[m], roles['student']['segments']), x, told(t), {'label': None, 'tokens': f})
      return predict(FLOW, 'velocity', x, t, out).x0

    return seen, [want(1, 1.0, f[0]), want(1, 0.7, later), want(0, 0.5, f[1])]

  got, want = run()
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  asked = Sampling(4, lambda: grids.uniform(FLOW, 4), lambda: solvers.ddim(FLOW, grids.uniform(FLOW, 4)), lambda d: d)
  draw = method.generator(roles, asked)
  assert (
    draw.nfe == 4
    and draw.cost == 8
    and jax.eval_shape(draw, keys.per_sample(jax.random.key(0), 3)).shape == (3, 4, 4, 1)
  )


def test_the_digits_encoder_is_the_classifiers_second_map():
  """The published features follow from these maps by what remains of the classifier."""
  images = digits.load()[1][0][:4]
  params = digits.networks()['feature']
  x = np.maximum(digits._convolve(np.asarray(digits.maps(images)).reshape(4, 4, 4, 32), params['conv2'], 2)
                 + params['bias2'], 0)  # fmt: skip
  hidden = np.tanh(x.reshape(4, -1) @ params['w'] + params['b'])
  np.testing.assert_allclose((hidden - params['mean']) / params['std'], digits.features(images), atol=1e-4)


def test_refusals():
  made = points()[1]
  for options, said in (
    (dict(segments=0), 'segments, align: got 0'),
    (dict(features=8), 'net, features: got MLP, 8; allowed: a dit'),
  ):
    with pytest.raises(InputError, match=said):
      fewstep.blockwise_flow_matching(made, **options)
  with pytest.raises(InputError, match="encoder: got 'other'; allowed: digits, or align = 0"):
    images(encoder='other')
  with pytest.raises(InputError, match='process: got another; allowed with blockwise_flow_matching: flow'):
    fewstep.blockwise_flow_matching(dataclasses.replace(made, process=schedules.cosine()))


def size(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.slow
def test_small_networks_do_what_a_large_one_does():
  """Four of width 64 against one of 128, at 32 steps: a third of the weights an evaluation, SW at most 1.15 times."""
  steps, ts = 5000, grids.uniform(FLOW, 32)
  asked = Sampling(32, lambda: ts, lambda: solvers.ddim(FLOW, ts), lambda denoise: denoise)
  got, weights = {}, {}
  for name, segments, width in (('small', 4, 64), ('large', 1, 128)):
    method, _ = points(segments=segments, width=width, steps=steps, depth=3)
    roles = bench.trained(method, ring(), steps)
    draw = method.generator(roles, asked)
    x = jax.jit(lambda draw: draw(keys.per_sample(jax.random.key(7), 20000)))(draw)
    got[name] = bench.figures(ring(), np.asarray(x)).sw
    weights[name] = size(roles['student']) / segments
  assert weights['small'] <= 0.35 * weights['large']
  assert got['small'] <= 1.15 * got['large'], got
