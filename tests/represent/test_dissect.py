"""Units of generators, on one whose units are known and on a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import nets, schedules
from diffjax.errors import InputError
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser
from diffjax.represent import causal_effect, causal_units, dissect, editable

N, SIDE, UNITS, CLASSES = 64, 16, 12, 3  # units 2k and 2k + 1 draw class k, six draw nothing


def planted(seed=0):
  """Units (n, h, w, U): in a patch of class k one of its two is 1.2 and the other .6, by a coin a place."""
  rng = np.random.default_rng(seed)
  h = 0.05 * np.abs(rng.standard_normal((N, SIDE, SIDE, UNITS)))
  h[..., 2 * CLASSES :] = rng.uniform(0, 1.5, (N, SIDE, SIDE, UNITS - 2 * CLASSES))
  for i in range(N):
    for k in range(CLASSES):
      y, x = rng.integers(0, SIDE - 3, 2)
      coin = rng.integers(0, 2, (3, 3))
      h[i, y : y + 3, x : x + 3, 2 * k] = np.where(coin, 1.2, 0.6)
      h[i, y : y + 3, x : x + 3, 2 * k + 1] = np.where(coin, 0.6, 1.2)
  return jnp.asarray(h + 0.02 * rng.uniform(size=h.shape), jnp.float32)  # no ties


def generate(z, keep=1.0, add=0.0, sharp=40):
  """Class k is drawn where its two units sum to more than 1; softly, so that there is a slope."""
  h = keep * z + add
  return jax.nn.sigmoid(sharp * (h[..., 0 : 2 * CLASSES : 2] + h[..., 1 : 2 * CLASSES : 2] - 1)), h


def presence(k):
  return Partial(share, jnp.asarray(k))


def share(k, x):
  return jnp.mean(jnp.take(x, k, axis=-1), axis=(1, 2))


def chosen(*units):
  return jnp.zeros(UNITS).at[jnp.asarray(units)].set(1.0)


def test_units_are_labelled_by_where_they_are_on():
  """The planted ones to IoU .95 at the area of their class and .005 / area at the published share; noise never."""
  z = planted()
  masks = generate(z)[0] > 0.5
  area = float(jnp.mean(masks))
  found = dissect(z, masks)
  np.testing.assert_array_equal(found.best[: 2 * CLASSES], np.repeat(np.arange(CLASSES), 2))
  assert found.iou[: 2 * CLASSES].min() > 0.95 and found.iou[2 * CLASSES :].max() < 0.05
  fixed = dissect(z, masks, 0.005).iou[: 2 * CLASSES]
  np.testing.assert_allclose(fixed, 0.005 / area, rtol=0.15)
  halved = z.reshape(N, SIDE, SIDE, UNITS)[:, ::2, ::2]
  assert dissect(halved, masks).table.shape == (UNITS, CLASSES)


def test_sets_of_units_are_causes_and_single_ones_are_half():
  """Without the pair its class is gone and others stay; without one unit half is left; inserted it is everywhere."""
  z, whole = planted(), jnp.ones((SIDE, SIDE, 1))
  before = [float(jnp.mean(presence(k)(generate(z)[0]))) for k in range(CLASSES)]
  level = jnp.full(UNITS, 1.2)
  effect, there, gone = causal_effect(generate, presence(0), z, chosen(0, 1), whole, level)
  assert gone < 1e-6 and there > 0.999 and effect > 0.999
  _, _, one = causal_effect(generate, presence(0), z, chosen(0), whole, level)
  assert abs(one / before[0] - 0.5) < 0.05
  for k in (1, 2):
    np.testing.assert_allclose(causal_effect(generate, presence(k), z, chosen(0, 1), whole, level)[2], before[k], 1e-5)
  np.testing.assert_allclose(
    causal_effect(generate, presence(0), z, chosen(8, 9, 10), whole, level)[2], before[0], 1e-5
  )


def test_the_set_is_found_by_descent():
  soft = Partial(generate, sharp=6)
  a = causal_units(soft, share_of_first, planted(), UNITS, jnp.ones(()), jnp.full(UNITS, 1.2), steps=100)
  assert set(np.argsort(np.asarray(a))[-2:]) == {0, 1} and a[:2].min() > 0.75 and a[2:].max() < 0.1


def share_of_first(x):
  return jnp.mean(x[..., 0], axis=(1, 2))


NETS = {
  'mlp': (nets.mlp(width=8, depth=2), 'hidden0', (2,)),
  'unet': (nets.unet(width=8, channel_mult=(1, 2), blocks_per_level=1, attention=()), 'down0_0', (8, 8, 1)),
}


@pytest.mark.parametrize('name', ['mlp', pytest.param('unet', marks=pytest.mark.slow)])
def test_a_network_is_edited_at_its_taps(name):
  """Nothing changed is the network itself; a unit set to a number is that number, and moves what is drawn."""
  net, tap, shape = NETS[name]
  x, process = jax.random.normal(jax.random.key(1), (3, *shape)), schedules.cosine()
  params = jax.tree.map(lambda p: p + 0.2, net.init(jax.random.key(0), x, np.ones(3)))
  denoise = Denoiser(params, process, as_kind('v'), net=net)
  one, t = editable(denoise, tap, t=0.9), 0.9
  drawn, seen = one(x)
  np.testing.assert_allclose(drawn, denoise(x, t).x0, atol=1e-5)
  keep, add = jnp.ones(8).at[2].set(0), jnp.zeros(8).at[2].set(3.0)
  moved, edited = one(x, keep, add)
  np.testing.assert_allclose(edited[..., 2], 3.0)
  np.testing.assert_allclose(edited[..., 3], seen[..., 3], atol=1e-6)
  assert np.abs(moved - drawn).max() > 1e-3
  with pytest.raises(InputError, match="edits: 'down9' is no feature"):
    editable(denoise, 'down9')(x)


def test_bad_input():
  with pytest.raises(InputError, match='features: got'):
    dissect(jnp.zeros((2, 3, 3, 1)), jnp.zeros((2, 8, 8, 1), bool))
