"""What the residual is for: the two samplers of a network that is trained with it draw one law."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import keys, losses, nets, schedules, solvers
from diffjax.exact import mixture
from diffjax.kinds import as_kind
from diffjax.losses.fokker_planck import Potential
from diffjax.prediction import Denoiser

LAW = mixture([0.4, 0.6], [[-1.0], [0.8]], [0.04, 0.09])
PROCESS, NET, STEPS = schedules.vp_linear(t_min=1e-2), Potential(nets.mlp(width=32, depth=2)), 2500


def trained(weight, seed=0):
  loss = losses.fokker_planck(PROCESS, NET, weight=weight, probe='exact')
  optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))
  params = NET.net.init(jax.random.key(seed), jnp.zeros((1, 1)), jnp.zeros(1), None)

  def step(carry, i):
    params, state = carry
    own = keys.per_sample(jax.random.fold_in(jax.random.key(seed), i), 128)
    batch = {'x': LAW.sample(keys.fold(own, 9))}
    grads, aux = jax.grad(lambda p: (lambda v, a: (jnp.mean(v), a))(*loss({'student': p}, batch, own)), has_aux=True)(
      params
    )
    updates, state = optimiser.update(grads, state)
    return (optax.apply_updates(params, updates), state), (aux['error'].mean(), aux['residual'].mean())

  done = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(STEPS)))((params, optimiser.init(params)))
  (params, _), (error, residual) = done
  return params, float(error[-500:].mean()), float(residual[-500:].mean())


def samples(params, name, n=6000):
  denoise = Denoiser(params, PROCESS, as_kind('score'), net=NET)
  ts = np.linspace(1, float(PROCESS.t_min), 301)
  solver = getattr(solvers, name)(PROCESS, ts)
  own = keys.per_sample(jax.random.key(5), n)
  x = PROCESS.prior(own, jnp.zeros((n, 1)))
  return np.sort(np.asarray(solvers.sample(denoise, solver, x, keys.fold(own, 3)))[:, 0])


def gaps(params):
  """W2 between ODE and SDE, and of each to the law."""
  ode, sde = samples(params, 'heun_in_t'), samples(params, 'euler_maruyama')
  law = np.sort(np.asarray(LAW.sample(keys.per_sample(jax.random.key(8), len(ode))))[:, 0])
  w2 = lambda a, b: float(np.sqrt(np.mean((a - b) ** 2)))  # noqa: E731
  return w2(ode, sde), w2(ode, law), w2(sde, law)


@pytest.mark.slow
def test_the_residual_falls_and_the_two_samplers_come_together():
  """A fifth of the residual at most, and the gap between ODE and SDE smaller by a fifth at least."""
  (plain, _, rest), (held, _, less) = trained(0.0), trained(1.0)
  assert less <= rest / 5, (rest, less)
  assert gaps(held)[0] <= 0.8 * gaps(plain)[0], (gaps(plain), gaps(held))
