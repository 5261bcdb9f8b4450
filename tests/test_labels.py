"""A label that is not there is refused wherever its value is known; a traced one passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, guidance, kinds, labels, nets, schedules, search, solvers, statistics
from diffjax.methods import solved
from diffjax.prediction import Denoiser
from diffjax.runs import generate
from diffjax.solvers import grids

CLASSES = 3
IMAGES = jnp.zeros((2, 8, 8, 1))
NETS = dict(
  mlp=(nets.mlp(width=8, depth=1, classes=CLASSES), IMAGES),
  unet=(nets.unet(width=8, channel_mult=(1,), blocks_per_level=1, attention=(), classes=CLASSES, augment=9), IMAGES),
  dit=(nets.dit(depth=1, width=16, heads=2, classes=CLASSES), IMAGES),
  egnn=(nets.egnn(width=8, depth=1, classes=CLASSES), jnp.zeros((2, 4, 5))),
  s4=(nets.s4(width=8, depth=1, states=4, classes=CLASSES), jnp.zeros((2, 4, 5))),
  uvit=(nets.uvit(depth=2, width=16, heads=2, classes=CLASSES), IMAGES),
  edm2=(nets.edm2(width=16, channel_mult=(1,), blocks_per_level=1, attention=(), head_dim=16, classes=CLASSES), IMAGES),
  unidiffuser=(nets.unidiffuser(depth=2, width=16, heads=2, classes=CLASSES), {'a': IMAGES, 'b': jnp.zeros((2, 4))}),
)
PROCESS = schedules.cosine()


@pytest.mark.parametrize('name', NETS)
def test_networks(name):
  """0 .. classes are rows of the table, classes the null one; below and above there is none."""
  net, x = NETS[name]
  t = jnp.zeros((2,))
  params = jax.eval_shape(net.init, jax.random.key(0), x, t, jnp.zeros((2,), jnp.int32))
  call = lambda cond: jax.eval_shape(lambda p: net(p, x, t, cond), params)  # noqa: E731
  shape = jax.tree.map(jnp.shape, x)
  for good in (0, CLASSES - 1, CLASSES):
    out = call(jnp.array([0, good]))
    assert jax.tree.map(lambda leaf: leaf.shape, out) == shape
  for bad in (-1, -2, CLASSES + 1):
    for kind in (np.array, jnp.array):
      with pytest.raises(ValueError, match=f'cond: got label {bad}; allowed: 0 to 2, or 3, which means none'):
        call(kind([0, bad]))
  told = {'label': jnp.array([0, -1]), 'augment': jnp.zeros((2, 9))}
  if name == 'unet':
    with pytest.raises(ValueError, match='cond: got label -1'):
      call(told)
  traced = jax.eval_shape(lambda p, cond: net(p, x, t, cond), params, jax.ShapeDtypeStruct((2,), jnp.int32))
  assert jax.tree.map(lambda leaf: leaf.shape, traced) == shape


def network():
  net = nets.mlp(width=8, depth=1, classes=CLASSES)
  x = jnp.zeros((2, 2))
  params = net.init(jax.random.key(0), x, x[:, 0], jnp.zeros((2,), jnp.int32))
  return Denoiser(params, PROCESS, kinds.v(), CLASSES, net=net)


def target():
  return exact.mixture([0.2, 0.3, 0.5], np.eye(3, 2), np.ones(3), labels=[0, 1, 2]).denoiser(PROCESS)


def table():
  return solvers.ddim(PROCESS, grids.uniform(PROCESS, 2))


X, KEY = jnp.zeros((2, 2)), jax.random.key(0)
DOORS = dict(
  call=lambda denoise, cond: denoise(X, 0.5, cond),
  sample=lambda denoise, cond: solvers.sample(denoise, table(), X, KEY, cond),
  path=lambda denoise, cond: solvers.trajectory(denoise, table(), X, KEY, cond),
  dopri5=lambda denoise, cond: solvers.dopri5(denoise, X, cond),
  dpm_adaptive=lambda denoise, cond: solvers.dpm_adaptive(denoise, X, cond),
  generate=lambda denoise, cond: generate.generate(solved(denoise, table(), (2,)), 2, np.asarray(cond)),
  errors=lambda denoise, cond: search.errors(denoise, search.population([table()]), X, X, cond),
  decay_from=lambda denoise, cond: search.reference(denoise, X, cond),
  descend=lambda denoise, cond: search.descend([search.Target(denoise, X, X, cond)], table(), 1),
  boss=lambda denoise, cond: search.boss(denoise, X, 2, 4, cond),
  energies=lambda denoise, cond: statistics.energies(denoise, X, KEY, cond, knots=3),
  linear_terms=lambda denoise, cond: statistics.linear_terms(denoise, X, KEY, cond, knots=3),
)


@pytest.mark.parametrize(
  'made, bad, allowed', [(network, (-1, -2, 4), '0 to 2, or 3'), (target, (-2, 3), '0, 1, 2, or -1')]
)
@pytest.mark.parametrize('door', DOORS)
def test_doors_of_the_library(door, made, bad, allowed):
  """Below transforms too, and before anything is compiled."""
  for wrap in (lambda d: d, lambda d: guidance.threshold(guidance.cfg(d, 2.0))):
    for label in bad:
      with pytest.raises(ValueError, match=f'got label {label}; allowed: {allowed}, which means'):
        DOORS[door](wrap(made()), jnp.array([0, label]))


def test_what_is_there_is_drawn():
  """The closed form: a class of the mixture alone, and -1 the whole."""
  m = target()
  x, t = jnp.array([[0.3, -0.2]]), 0.5
  one = exact.gaussian(np.eye(3, 2)[1], np.eye(2)).denoiser(PROCESS)
  np.testing.assert_allclose(m(x, t, jnp.array([1])).x0, one(x, t).x0, atol=1e-6)
  np.testing.assert_allclose(m(x, t, jnp.array([-1])).x0, m(x, t).x0, atol=1e-6)


@pytest.mark.parametrize('guide', [guidance.cfg, guidance.cfgpp])
def test_a_null_that_is_not_there(guide):
  with pytest.raises(ValueError, match='null: got label 4; allowed: 0 to 2, or 3'):
    guide(network(), 2.0, null=4)
  guide(network(), 2.0, null=1)


@pytest.mark.parametrize('cond', [None, jnp.zeros((2, 4)), {'image': (X, 0.0)}, {'label': (X, 0.0)}, 'text', KEY])
def test_other_conditions_have_no_labels(cond):
  assert labels.known(cond) is None
  labels.check(cond, CLASSES)
