"""FLOPs counted in a trace against hand counts, against XLA's own and against the same program without loops."""

import jax
import jax.numpy as jnp
import pytest

from diffjax import nets
from diffjax.train.flops import flops

S = jax.ShapeDtypeStruct


def test_a_product_is_two_operations_a_multiply_add():
  shapes = S((5, 7, 3), jnp.float32), S((5, 3, 11), jnp.bfloat16)
  assert flops(lambda a, b: jnp.sin(a @ b) + 1, *shapes) == 2 * 5 * 7 * 3 * 11


@pytest.mark.parametrize(
  'shape, kernel, options',
  [
    ((2, 9, 8, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), padding='SAME')),
    ((2, 9, 8, 4), (3, 2, 4, 6), dict(window_strides=(2, 3), padding='SAME')),
    ((2, 9, 8, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), padding=((0, 3), (2, 1)), rhs_dilation=(2, 1))),
    ((2, 5, 4, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), padding=((2, 2), (1, 2)), lhs_dilation=(2, 2))),
    ((2, 9, 8, 4), (3, 3, 2, 6), dict(window_strides=(1, 1), padding='VALID', feature_group_count=2)),
  ],
)
def test_convolutions_and_their_gradients_as_xla_counts_them(shape, kernel, options):
  convolve = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
    x, k, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options
  )
  shapes = S(shape, jnp.float32), S(kernel, jnp.float32)
  out = S(jax.eval_shape(convolve, *shapes).shape, jnp.float32)

  def back(x, k, g):
    y, pull = jax.vjp(convolve, x, k)
    return y, pull(g)

  for function, arguments in ((convolve, shapes), (back, (*shapes, out))):
    assert flops(function, *arguments) == jax.jit(function).lower(*arguments).cost_analysis()['flops']


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_at_its_dearest():
  x, one = S((8, 8), jnp.float32), 2 * 8**3
  assert flops(lambda x: jax.lax.scan(lambda h, _: (h @ h, None), x, None, length=5)[0], x) == 5 * one
  assert flops(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), x) == 2 * one


@pytest.mark.parametrize('remat', [None, True])
def test_a_scan_over_layers_costs_what_its_layers_cost(remat):
  """The gradient of a DiT of three blocks, one compiled for all or each for itself."""
  counts = []
  for scan in (False, True):
    net = nets.dit(width=16, depth=3, heads=2, patch=2, classes=3, scan=scan, remat=remat)
    inputs = jnp.zeros((4, 8, 8, 1)), jnp.zeros(4), jnp.zeros(4, int)
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    counts.append(flops(jax.grad(lambda p, net=net, inputs=inputs: jnp.sum(net(p, *inputs) ** 2)), params))
  assert counts[0] == counts[1] > 0
