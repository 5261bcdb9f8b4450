import math

import jax
import numpy as np
import pytest


@pytest.fixture
def filled():
  """Weights of order 1/sqrt(fan in) everywhere, so that no path is shut; drawn by NumPy, which compiles nothing."""

  def fill(net, *args, seed=1):
    rng = np.random.default_rng(seed)

    def draw(shape):
      return jax.numpy.asarray(rng.standard_normal(shape.shape) / math.sqrt(math.prod(shape.shape[:-1])), 'float32')

    return jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0), *args))

  return fill


@pytest.fixture
def initial():
  """`net.init`, compiled without optimisation: some forty draws otherwise take ten seconds to compile."""

  def init(net, *args):
    return jax.jit(net.init, compiler_options={'xla_backend_optimization_level': 0})(jax.random.key(0), *args)

  return init
