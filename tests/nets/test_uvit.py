import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import Apply, uvit

QUICK = {'xla_backend_optimization_level': 0}
X = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
T = jnp.array([5.0, 700.0])
TEXT = jax.random.normal(jax.random.key(1), (2, 3, 5))
SMALL = dict(depth=2, width=16, heads=2)


def count(net, *inputs):
  shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  return sum(math.prod(a.shape) for a in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  'options, shape, millions',
  [
    (dict(size='S'), (32, 32, 3), 44),  # CIFAR-10
    (dict(size='S', text=(77, 768)), (32, 32, 4), 45),  # COCO; the paper rounds down to 44
    (dict(size='S-deep', text=(77, 768)), (32, 32, 4), 58),
    (dict(size='M', patch=4, classes=1000), (64, 64, 3), 131),
    (dict(size='L', patch=4, classes=1000), (64, 64, 3), 287),
    (dict(size='L', classes=1000), (32, 32, 4), 287),
    (dict(size='H', classes=1000, conv=False), (32, 32, 4), 501),
  ],
)
def test_count_of_the_paper(options, shape, millions):
  """Table 1 of arXiv:2209.12152; nothing is allocated."""
  text = jnp.zeros((1, *options['text'])) if 'text' in options else None
  assert round(count(uvit(**options, scan=True), jnp.zeros((1, *shape)), jnp.zeros(1), text) / 1e6) == millions


@pytest.mark.parametrize(
  'options, cond, tokens', [({}, None, 1), (dict(classes=3), None, 2), (dict(text=(3, 5)), TEXT, 4)]
)
def test_tokens(options, cond, tokens, filled):
  """Time, label or text, and 4 patches; what the condition says reaches the output, and so does the time."""
  net = Apply(uvit(**SMALL, **options).module, ('in', 'head'))
  params = filled(net, X, T, cond)
  run = jax.jit(net, compiler_options=QUICK)
  out, features = run(params, X, T, cond)
  assert out.shape == X.shape and features['in'].shape == features['head'].shape == (2, tokens + 4, 16)
  assert params['positions'].shape == (tokens + 4, 16)
  assert jnp.abs(run(params, X, T + 100, cond)[0] - out).max() > 1e-3
  if cond is not None:
    assert jnp.abs(run(params, X, T, -cond)[0] - out).max() > 1e-3


def test_skips_reach_from_the_first_block_to_the_last(filled):
  """With the path through the deeper blocks cut, what out_block_1 reads is what in_block_0 gave, not in_block_1."""
  net = uvit(**(SMALL | dict(depth=4)))
  params = filled(net, X, T)
  first = Apply(net.module, ('in_block_0/out', 'in_block_1/out', 'out_block_1/out'))
  cut = params['out_block_1']
  skip = jnp.concatenate([jnp.zeros((16, 16)), jnp.eye(16)])
  still = jax.tree.map(jnp.zeros_like, {k: cut[k] for k in ('attention', 'feed')})
  params['out_block_1'] = cut | still | {'skip': dict(kernel=skip, bias=jnp.zeros(16))}
  _, features = jax.jit(first, compiler_options=QUICK)(params, X, T)
  np.testing.assert_allclose(features['out_block_1/out'], features['in_block_0/out'], atol=1e-5)
  assert jnp.abs(features['out_block_1/out'] - features['in_block_1/out']).max() > 0.1


@pytest.mark.parametrize(
  'field, change', [('depth', dict(depth=3)), ('text', dict(text=(3,))), ('text', dict(text=(3, 5), classes=2))]
)
def test_refuses_arguments(field, change):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    uvit(**(SMALL | change))


@pytest.mark.parametrize('cond', [None, TEXT[:, :2]])
def test_refuses_another_text(cond):
  with pytest.raises(ValueError, match=r'^cond: .*\(2, 3, 5\)'):
    jax.eval_shape(uvit(**SMALL, text=(3, 5)).init, jax.random.key(0), X, T, cond)
