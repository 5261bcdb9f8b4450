"""Guidance by attention: what the surgery does to one attention, and what the transforms make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import nets, schedules
from diffjax.errors import InputError
from diffjax.guidance import attentive_eraser, cfg, cost, perturbed_attention
from diffjax.guidance.eraser import redirected
from diffjax.guidance.perturbed import hooked
from diffjax.kinds import as_kind
from diffjax.nets.attention import attend, one_head
from diffjax.nets.hooks import identity
from diffjax.prediction import Denoiser, as_denoiser

PROCESS = schedules.cosine()
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 1)), jnp.float32)
COND, T = jnp.asarray([0, 2]), 0.5
BOX = np.zeros((4, 4), bool)
BOX[:2, :2] = True
NETS = dict(
  dit=nets.dit(depth=1, width=8, heads=1, patch=1, classes=3),
  uvit=nets.uvit(depth=2, width=8, heads=1, patch=1, classes=3, conv=False),
  unet=nets.unet(width=8, channel_mult=(1,), blocks_per_level=1, attention=(4,), classes=3),
)


def denoiser(name):
  net = NETS[name]
  like = jax.eval_shape(net.init, jax.random.key(0), X, jnp.zeros(2), COND)
  r = np.random.default_rng(1)
  params = jax.tree.map(lambda leaf: np.float32(0.5 * r.standard_normal(leaf.shape)), like)
  return Denoiser(params, PROCESS, as_kind('v'), 3, net=net)


@pytest.mark.parametrize('name', [n if n == 'dit' else pytest.param(n, marks=pytest.mark.slow) for n in NETS])
def test_the_transforms(name):
  """d + (scale - 1)(d - p), p of values alone; on CFG the bracket is conditional; scale 1, and 0 of the eraser, are d
  itself, bit for bit. The eraser goes towards a network that is deaf to what the object's tokens say."""
  d = denoiser(name)

  @jax.jit
  def run(d, away, towards):
    each = dict(
      c=d, p=hooked(d, '*', identity), away=perturbed_attention(d, away), towards=attentive_eraser(d, BOX, towards)
    )
    if name == 'unet':
      each |= dict(u=d, over=perturbed_attention(cfg(d, 2.0), away))
    return {k: made(X, T, COND * 0 + 3 if k == 'u' else COND).x0 for k, made in each.items()}

  plain, got = run(d, 1.0, 0.0), run(d, 3.0, 1.0)
  np.testing.assert_array_equal(plain['away'], got['c'])
  np.testing.assert_array_equal(plain['towards'], got['c'])
  np.testing.assert_allclose(got['away'], got['c'] + 2 * (got['c'] - got['p']), rtol=1e-4, atol=1e-4)
  assert np.abs(got['towards'] - got['c']).max() > 1e-3 and np.abs(got['p'] - got['c']).max() > 1e-3
  if 'over' in got:
    want = got['u'] + 2 * (got['c'] - got['u']) + 2 * (got['c'] - got['p'])
    np.testing.assert_allclose(got['over'], want, rtol=1e-3, atol=1e-4)
  made = perturbed_attention(cfg(d, 2.0), 3.0)
  assert cost(made, T) == 3 and cost(attentive_eraser(d, BOX), T) == 2


def test_no_row_reads_a_hidden_token():
  """The Jacobian in keys and values of the mask's tokens is 0, and that in the others is not; a token in front of the
  image's is never hidden; similarities of the mask's own queries are scaled."""
  r = np.random.default_rng(2)
  q, k, v = (jnp.asarray(r.standard_normal((1, 5, 1, 3)), jnp.float32) for _ in range(3))
  mask = jnp.asarray([[[True, False], [False, False]]])  # 2 x 2 tokens behind one other

  def out(k, v, factor=1.0):
    return redirected(one_head, q, k, v, (mask, jnp.asarray(factor)))

  for slope in jax.jacobian(out, (0, 1))(k, v):
    size = np.abs(slope).max((0, 1, 2, 3, 4, 6, 7))
    assert size[1] == 0 and (size[[0, 2, 3, 4]] > 1e-3).all()
  flat = out(k, v, 0.0)[0, 1, 0]
  np.testing.assert_allclose(flat, v[0, [0, 2, 3, 4], 0].mean(0), rtol=1e-5)
  np.testing.assert_allclose(out(k, v, 0.0)[0, [0, 2, 3, 4]], out(k, v)[0, [0, 2, 3, 4]], rtol=1e-6)
  everything = redirected(one_head, q[:, 1:], k[:, 1:], v[:, 1:], (mask | True, jnp.asarray(1.0)))
  np.testing.assert_allclose(everything[:, :, 0], attend(q[:, 1:, 0], k[:, 1:, 0], v[:, 1:, 0]), rtol=1e-5)
  fine = jnp.asarray(np.kron(np.asarray(mask[0]), np.eye(4)) > 0)[None]  # any pixel of a token counts
  np.testing.assert_array_equal(redirected(one_head, q, k, v, (fine, jnp.asarray(1.0))), out(k, v))


def test_masks_follow_samples_and_times():
  """A mask a sample, also under the doubled batch of CFG; no guidance before the start."""
  d, masks = denoiser('dit'), np.stack([BOX, ~BOX])

  @jax.jit
  def run(d):
    one = [attentive_eraser(d, mask, 2.0)(X, T, COND).x0 for mask in masks]
    each, both = attentive_eraser(d, masks, 2.0), cfg(attentive_eraser(d, masks, 2.0), 1.0)
    late = attentive_eraser(d, masks, 2.0, start=0.3)
    return one, each(X, T, COND).x0, both(X, T, COND).x0, late(X, T, COND).x0, d(X, T, COND).x0

  one, each, both, late, plain = run(d)
  np.testing.assert_allclose(each, jnp.stack([one[0][0], one[1][1]]), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(both, each, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(late, plain)


def test_refusals_of_networks():
  mlp = nets.mlp(width=4, depth=1)
  plain = Denoiser(mlp.init(jax.random.key(0), X, jnp.zeros(2)), PROCESS, as_kind('v'), net=mlp)
  shown = denoiser('dit')

  def asked(make, d, *options):
    cond = None if d is plain else COND
    return lambda: jax.eval_shape(lambda x: make(d, *options)(x, T, cond), X)

  for make, message in (
    (asked(perturbed_attention, plain, 2.0), 'is no attention of MLP; allowed: none'),
    (lambda: perturbed_attention(as_denoiser(lambda x, t, c: x, PROCESS), 2.0), 'network: got Function, which has no'),
    (asked(perturbed_attention, shown, 2.0, 'middle*'), "'middle.*is no attention of DiT"),
    (lambda: attentive_eraser(shown, np.ones(4)), r'mask: got shape \(4,\); allowed: \(H, W\)'),
    (asked(attentive_eraser, shown, np.ones((3, 4, 4))), 'mask: got 3 masks for 2 samples'),
    (asked(attentive_eraser, shown, np.ones((7, 7))), r'mask: got shape \(7, 7\) for 16 tokens'),
  ):
    with pytest.raises(InputError, match=message):
      make()
