import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import Apply, dit, edm2, unet, unidiffuser, uvit
from diffjax.nets.hooks import extended, identity, masked, shifted
from diffjax.nets.transformer import stacked

QUICK = {'xla_backend_optimization_level': 0}
X = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
T = jnp.array([5.0, 700.0])
NET = dit(depth=2, width=16, heads=2)
NAME = 'block_0/attention'
UNET = dict(width=8, channel_mult=(1,), blocks_per_level=1, attention=(4,))
TWO = UNET | dict(channel_mult=(1, 2), attention=(4, 2))


def hooked(net, *hooks, taps=()):
  return Apply(net.module, taps, hooks)


def with_given(params, **given):
  return params | {'hooks': {NAME: given['given']}}


@pytest.fixture
def params(filled):
  return filled(NET, X, T)


def test_names():
  assert NET.hook_names(X, T) == ('block_0/attention', 'block_1/attention')
  assert dit(depth=2, width=16, heads=2, scan=True).hook_names(X, T) == ('blocks/attention',)
  assert 'middle/attention' in uvit(depth=2, width=16, heads=2, remat=True).hook_names(X, T)
  assert set(unet(**UNET).hook_names(X, T)) == {'down0_0_attention', 'middle_attention', 'up0_1_attention'}


TINY = dict(depth=2, width=16, heads=2)
PAIR = {'image': X, 'word': X[:, 0, 0]}
EVERY = {
  'dit': (dit(**TINY), X),
  'edm2': (edm2(**UNET, head_dim=4), X),
  'edm2, two levels': (edm2(**TWO, head_dim=4), X),
  'unet': (unet(**UNET), X),
  'unet, two levels': (unet(**TWO), X),
  'unidiffuser': (unidiffuser(**TINY), PAIR),
  'uvit': (uvit(**TINY), X),
}


@pytest.mark.quick('dit', 'unet')
@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=pytest.mark.slow) if name.endswith('levels') else name for name in EVERY]
)
def test_every_attention_has_a_hook_and_a_tap(name, filled):
  """An attention is what has a weight of queries, keys and values. A shift of its result moves the output, and what it
  gives can be read."""
  net, x = EVERY[name]
  params = filled(net, x, T)
  paths = (jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in jax.tree.leaves_with_path(params))
  found = sorted({path.split('/qkv/')[0] for path in paths if '/qkv/' in path})
  assert found and list(net.hook_names(x, T)) == found
  taps = tuple(place + '/out' for place in found)
  assert set(taps) < set(net.tap_names(x, T))
  given = {place: jnp.zeros((1, 1, 1, 1)) for place in found}

  def size(given):
    out, features = hooked(net, ('*', shifted), taps=taps)(params | {'hooks': given}, x, T)
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(out)), features

  slopes, features = jax.jit(jax.grad(size, has_aux=True), compiler_options=QUICK)(given)
  assert all(jnp.abs(slope).max() > 1e-4 for slope in slopes.values())
  assert all(jnp.abs(feature).max() > 1e-4 for feature in features.values())


def test_what_changes_nothing(params):
  """A mask of ones, an added zero, further keys too far away to be seen."""
  want = NET(params, X, T)
  far = (jnp.zeros((1, 3, 2, 8)), jnp.ones((1, 3, 2, 8)))
  same = [(masked, jnp.ones((1, 1, 4, 4), bool)), (shifted, jnp.zeros((1, 1, 2, 8)))]
  for hook, given in same:
    np.testing.assert_allclose(hooked(NET, (NAME, hook))(with_given(params, given=given), X, T), want, atol=1e-5)
  got = hooked(NET, (NAME, extended))(with_given(params, given=far), X, T)
  assert jnp.abs(got - want).max() > 1e-3  # keys of zero have logit 0 and are seen


def test_extended_by_itself_is_itself(params):
  """The softmax over the same keys twice gives the same mean."""
  twice = hooked(NET, ('block_*/attention', doubled))(params, X, T)
  np.testing.assert_allclose(twice, NET(params, X, T), atol=1e-5)


def doubled(attend, q, k, v, given):
  return extended(attend, q, k, v, (k, v))


def test_seeing_only_oneself_is_the_identity_map(params):
  alone = with_given(params, given=jnp.eye(4, dtype=bool)[None, None])
  got = hooked(NET, (NAME, masked))(alone, X, T)
  np.testing.assert_allclose(got, hooked(NET, (NAME, identity))(params, X, T), atol=1e-5)
  assert jnp.abs(got - NET(params, X, T)).max() > 1e-3


def test_given_is_differentiated_and_never_compiled_again(params):
  net, traces = hooked(NET, (NAME, shifted), taps=('block_0/attention/out',)), []

  @jax.jit
  def slope(params):
    traces.append(0)
    return jax.grad(lambda p: jnp.square(net(p, X, T)[0]).sum())(params)['hooks'][NAME]

  for value in (0.0, 0.5):
    g = slope(with_given(params, given=jnp.full((1, 1, 2, 8), value)))
  assert len(traces) == 1 and g.shape == (1, 1, 2, 8) and jnp.abs(g).min() > 0
  assert net == hooked(NET, (NAME, shifted), taps=('block_0/attention/out',)) != hooked(NET, (NAME, masked))


@pytest.mark.parametrize(
  'plain, other',
  [
    (NET, dit(depth=2, width=16, heads=2, remat=True)),
    (NET, dit(depth=2, width=16, heads=2, scan=True, remat='dots')),
    pytest.param(unet(**UNET), unet(**UNET, remat='dots'), marks=pytest.mark.slow),
  ],
)
def test_under_remat_and_scan(plain, other, filled):
  """All attentions hooked give what all attentions hooked give in the plain network, and something else than none."""
  params = filled(plain, X, T)
  theirs = stacked(params) if getattr(other.module, 'scan', False) else params

  def run(net, params):
    return jax.jit(hooked(net, ('*attention', identity)), compiler_options=QUICK)(params, X, T)

  got = run(plain, params)
  np.testing.assert_allclose(run(other, theirs), got, atol=1e-5)
  assert jnp.abs(jax.jit(plain, compiler_options=QUICK)(params, X, T) - got).max() > 1e-3


def test_refuses_unknown_names(params):
  with pytest.raises(ValueError, match="^hooks: 'block_7/attention'.*allowed: block_0/attention, block_1/attention"):
    hooked(NET, ('block_7/attention', identity))(params, X, T)
  with pytest.raises(ValueError, match="^hooks: 'attention' is no attention"):
    hooked(NET, ('*', identity))(params | {'hooks': {'attention': 0}}, X, T)
