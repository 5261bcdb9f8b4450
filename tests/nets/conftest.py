import functools
import math

import jax
import numpy as np
import pytest


@functools.cache
def shapes(net, structure, kinds):
  """Those of the weights; a trace each, however many tests ask."""
  args = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*kind) for kind in kinds])
  return jax.eval_shape(net.init, jax.random.key(0), *args)


@pytest.fixture
def filled():
  """Weights of order 1/sqrt(fan in) everywhere, so that no path is shut; drawn by NumPy, which compiles nothing."""

  def fill(net, *args, seed=1):
    rng = np.random.default_rng(seed)

    def draw(shape):
      return jax.numpy.asarray(rng.standard_normal(shape.shape) / math.sqrt(math.prod(shape.shape[:-1])), 'float32')

    leaves, structure = jax.tree.flatten(args)
    kinds = tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
    return jax.tree.map(draw, shapes(net, structure, kinds))

  return fill


@pytest.fixture
def initial():
  """`net.init`, compiled without optimisation: some forty draws otherwise take ten seconds to compile."""

  def init(net, *args):
    return jax.jit(net.init, compiler_options={'xla_backend_optimization_level': 0})(jax.random.key(0), *args)

  return init
