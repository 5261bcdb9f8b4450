import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import Apply, unidiffuser

QUICK = {'xla_backend_optimization_level': 0}
SMALL = dict(depth=2, width=16, heads=2)
R = np.random.default_rng(0)
X = {
  'image': {'latent': R.standard_normal((2, 4, 4, 2)), 'clip': R.standard_normal((2, 6))},
  'text': R.standard_normal((2, 3, 5)),
}
X = jax.tree.map(np.float32, X)
T = {'image': jnp.array([5.0, 700.0]), 'text': jnp.array([300.0, 20.0])}


def test_count_of_the_release():
  """952 million by counting the boxes: latents 64 x 64 x 4, one CLIP vector of 512, 77 text tokens of 64."""
  x = {'image': {'latent': jnp.zeros((1, 64, 64, 4)), 'clip': jnp.zeros((1, 512))}, 'text': jnp.zeros((1, 77, 64))}
  shapes = jax.eval_shape(unidiffuser(scan=True).init, jax.random.key(0), x, {k: jnp.zeros(1) for k in x})
  d, features = 1536, 2 * 2 * 4 + 512 + 64
  block, skip = 12 * d * d + 10 * d, 2 * d * d + 3 * d
  ends = features * d + 3 * d + features * d + features + 2 * d
  want = 31 * block + 15 * skip + ends + (2 + 77 + 1 + 32 * 32) * d
  assert sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)) == want and 952e6 <= want < 953e6


def test_parts_and_times(filled):
  """Two times, one CLIP token, 4 patches, 3 words; every output moves with every time, and with their exchange."""
  net = Apply(unidiffuser(**SMALL).module, ('in',))
  params, run = filled(net, X, T), jax.jit(net, compiler_options=QUICK)
  out, features = run(params, X, T)
  assert jax.tree.map(np.shape, out) == jax.tree.map(np.shape, X)
  assert features['in'].shape == (2, 10, 16)
  swapped = {'image': T['text'], 'text': T['image']}
  for times in (T | {'image': T['image'] + 50}, T | {'text': T['text'] + 50}, swapped):
    for a, b in zip(*map(jax.tree.leaves, (run(params, X, times)[0], out)), strict=True):
      assert jnp.abs(a - b).max() > 1e-4


def test_one_time_is_that_time_for_all(filled):
  net = unidiffuser(**SMALL)
  params, run = filled(net, X, T), jax.jit(net, compiler_options=QUICK)
  one = run(params, X, T['text'])
  jax.tree.map(np.testing.assert_array_equal, one, run(params, X, {'image': T['text'], 'text': T['text']}))


@pytest.mark.parametrize(
  'field, x, t',
  [
    ('x', X['text'], T['text']),
    ('t', X, {'image': T['image']}),
    (r'x\[text\]', X | {'text': T['text']}, T),
    ('depth', None, None),
  ],
)
def test_refuses(field, x, t):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    net = unidiffuser(**(SMALL | dict(depth=3) if x is None else SMALL))
    jax.eval_shape(net.init, jax.random.key(0), x, t)
