"""Initial weights, leaf by leaf: the law and deviation that the published networks draw each from."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import dit, edm2, unidiffuser, uvit

X, T, D = jnp.zeros((1, 4, 4, 3)), jnp.zeros(1), 64
SMALL = dict(depth=2, width=D, heads=2, classes=40)
FEW = dict(width=D, channel_mult=(1,), blocks_per_level=1, attention=(4,), head_dim=32, classes=40)


def xavier(fan_in, fan_out):
  """nn.Linear under xavier_uniform."""
  return 'uniform', math.sqrt(2 / (fan_in + fan_out))


def default(fan_in):
  """PyTorch's own nn.Conv2d, weight and bias: uniform on +-1 / sqrt(fan_in)."""
  return 'uniform', 1 / math.sqrt(3 * fan_in)


ZERO, ONE, NORMAL = ('constant', 0.0), ('constant', 1.0), ('normal', 1.0)
SMALL_NORMAL = ('normal', 0.02)
# name of a leaf, a pattern: the first that fits. Sources: `initialize_weights` of DiT, `_init_weights` of U-ViT (which
# leaves convolutions and embeddings as PyTorch makes them), networks_edm2.py.
DIT = {
  r'(.*/)?ada/(kernel|bias)': ZERO,
  r'out/(kernel|bias)': ZERO,
  r'time_[01]/kernel': SMALL_NORMAL,
  r'label/table': SMALL_NORMAL,
  r'patch/kernel': xavier(2 * 2 * 3, D),
  r'.*attention/qkv/kernel': xavier(D, 3 * D),
  r'.*attention/out/kernel': xavier(D, D),
  r'.*feed/(in|out)/kernel': xavier(D, 4 * D),
  r'.*bias': ZERO,
}
BLOCKS = {
  r'.*norm(_\w+)?/scale': ONE,
  r'.*(qkv|attention/out|feed/in|feed/out|skip)/kernel': SMALL_NORMAL,
  r'positions': SMALL_NORMAL,
  r'label/table': NORMAL,
}
UVIT = {
  r'patch/(kernel|bias)': default(2 * 2 * 3),
  r'conv/(kernel|bias)': default(3 * 3 * 3),
  r'out/kernel': SMALL_NORMAL,
  **BLOCKS,
  r'.*bias': ZERO,
}
UNIDIFFUSER = {
  r'in_image/(kernel|bias)': default(2 * 2 * 3),
  r'in_text/kernel': SMALL_NORMAL,
  r'out_(image|text)/kernel': SMALL_NORMAL,
  **BLOCKS,
  r'.*bias': ZERO,
}
EDM2 = {
  r'(.*/)?gain': ZERO,
  r'.*mp_kernel': NORMAL,
  r'fourier/frequencies': NORMAL,
  r'fourier/phases': ('uniform', 1 / math.sqrt(12)),  # on [0, 1]
}
NETS = dict(
  dit=(dit(**SMALL), X, DIT),
  dit_scan=(dit(**SMALL, scan=True), X, DIT),
  uvit=(uvit(**SMALL), X, UVIT),
  unidiffuser=(unidiffuser(**SMALL), {'image': X, 'text': jnp.zeros((1, 4, 10))}, UNIDIFFUSER),
  edm2=(edm2(**FEW), X, EDM2),
)


def check(name, values, law, size):
  """Mean, deviation and reach within 5 standard errors of the law's."""
  if law == 'constant':
    assert (values == size).all(), name
    return
  n, centre = values.size, 0.5 if name.endswith('phases') else 0.0
  assert values.all(), name
  assert abs(values.mean() - centre) < 5 * size / math.sqrt(n), name
  relative = np.std(values) / size - 1
  assert abs(relative) < 5 * (math.sqrt(1 / 2 / n) if law == 'normal' else math.sqrt(0.2 / n)), (name, relative)
  reach = np.abs(values - centre).max() / size
  assert (reach <= math.sqrt(3) * (1 + 1e-6)) == (law == 'uniform'), (name, reach)


@pytest.mark.quick('dit')
@pytest.mark.parametrize('name', NETS)
def test_every_leaf_has_the_published_law(name):
  net, x, rules = NETS[name]
  key = jax.random.key(0, impl='rbg')  # quick to compile
  params, seen = jax.jit(net.init, compiler_options={'xla_backend_optimization_level': 0})(key, x, T), set()
  for path, leaf in jax.tree.leaves_with_path(params):
    leaf_name, values = jax.tree_util.keystr(path, simple=True, separator='/'), np.asarray(leaf, np.float64)
    pattern = next(p for p in rules if re.fullmatch(p, leaf_name))
    check(leaf_name, values, *rules[pattern])
    if rules[pattern][0] != 'constant':
      assert values.tobytes() not in seen, f'{leaf_name}: drawn twice'
      seen.add(values.tobytes())
    if leaf_name.endswith('mp_kernel'):
      np.testing.assert_allclose(np.mean(values**2, tuple(range(values.ndim - 1))), 1, rtol=1e-3)
  unused = [p for p in rules if not any(re.fullmatch(p, jax.tree_util.keystr(q, simple=True, separator='/'))
                                        for q, _ in jax.tree.leaves_with_path(params))]  # fmt: skip
  assert not unused
