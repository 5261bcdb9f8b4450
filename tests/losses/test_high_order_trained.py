"""What higher orders are for: the density of the probability-flow ODE of a network that is trained by them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import keys, losses, nets, schedules
from diffjax.exact import mixture
from diffjax.kinds import edm
from diffjax.likelihood import log_density
from diffjax.losses.times import lognormal
from diffjax.prediction import Denoiser

# three narrow parts of one dimension, in which all derivatives are known
LAW = mixture([0.3, 0.3, 0.4], [[-2 / 7], [-6 / 7], [4 / 7]], [0.1 / 49, 0.1 / 49, 1 / 49])
PROCESS, KIND, NET = schedules.ve(), edm(0.63), nets.mlp(width=64, depth=2)


def trained(order, seed, steps=2000):
  loss = losses.high_order(PROCESS, NET, KIND, order=order, probe='exact', times=lognormal(-2.0, 1.6))
  optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, steps)))
  params = NET.init(jax.random.key(seed), jnp.zeros((1, 1)), jnp.zeros(1), None)

  def step(carry, i):
    params, state = carry
    own = keys.per_sample(jax.random.fold_in(jax.random.key(seed), i), 256)
    batch = {'x': LAW.sample(keys.fold(own, 1))}
    grads = jax.grad(lambda p: jnp.mean(loss({'student': p}, batch, own)[0]))(params)
    updates, state = optimiser.update(grads, state)
    return (optax.apply_updates(params, updates), state), None

  return jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps))[0][0])((params, optimiser.init(params)))


def gap(params):
  """How much worse than the entropy the ODE's log-density is, in nats."""
  x = LAW.sample(keys.per_sample(jax.random.key(77), 1000))
  out = log_density(Denoiser(params, PROCESS, KIND, net=NET), x, rtol=1e-4, atol=1e-4, data_std=0.63)
  return float(np.mean(LAW.log_density(x) - out.log_p))


@pytest.mark.slow
def test_the_third_order_has_the_better_density():
  """Nats above the entropy, three seeds: order 3 is below order 1 in each."""
  first, third = ([gap(trained(order, seed)) for seed in range(3)] for order in (1, 3))
  assert (np.array(third) <= np.array(first)).all(), (first, third)
