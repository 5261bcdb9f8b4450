"""Runs to be tuned: the exact jumps of a Gaussian, and consistency models of the ring."""

import functools

import closed
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import fewstep, kinds, nets, schedules
from diffjax.fewstep.iterated import iterated
from diffjax.methods import Source
from diffjax.train.step import init_state, make_train_step
from experiments import ring

KIND = kinds.x0().plain()
EDM = schedules.edm(sigma_min=0.01, sigma_max=10.0)


class Begun(closed.Exact):
  """`closed.Exact` with weights to begin with, those that make it exact."""

  def init(self, key, x, t, cond=None):
    return closed.right()


def exact(process, end, gamma=1.0):
  """The exact jumps as a run."""
  own, jump = ring.parts(closed.target(), process, KIND), closed.jump(process, end)
  return Source(
    'exact', process, (1,), 0, closed.right(), lambda params: None, KIND, jump.net,
    lambda params, asked: iterated(own, jump, params, asked, gamma),
  )  # fmt: skip


def on_exact(**changes):
  """Parts of a run that tunes the exact jumps; on one dimension, by two weights."""
  return ring.parts(
    closed.target(), EDM, KIND, net=Begun(EDM, 0.01), **(dict(base=exact(EDM, 0.01), teacher=None) | changes)
  )


def batch(n=32):
  return {'x': jnp.zeros((n, 1))}


NET = nets.mlp(width=128, depth=3)
TIMES = (10.0, 2.0, 0.8, 0.3)


@functools.cache
def consistency_model(steps=4000, batch=256):
  """A consistency model of the ring, distilled from its closed form: the parts of a run that tunes it."""
  kind = kinds.edm(ring.STD)
  method = fewstep.consistency_distillation(ring.parts(ring.ring(), EDM, kind, net=NET, steps=steps))
  roles = ring.trained(method, ring.ring(), steps, batch=batch)
  source = Source(
    'ring', EDM, (2,), 0, roles['student'], lambda params: None, kind, NET,
    lambda params, asked: method.generator({'student': params}, asked),
  )  # fmt: skip
  return source


def on_the_ring(steps, rate):
  """Parts of a run of so many steps that tunes it, Adam at a constant rate."""
  base, kind = consistency_model(), kinds.edm(ring.STD)
  tuner = lambda: optax.chain(optax.clip_by_global_norm(5.0), optax.adam(rate))  # noqa: E731
  return ring.parts(ring.ring(), EDM, kind, net=NET, steps=steps, base=base, teacher=None, optimiser=tuner)


def tuned(method, steps, x, batch=512, seed=0):
  """The roles after so many steps on rows of x, beginning as the base, in one program."""
  base, move = consistency_model().params, make_train_step(method)

  def one(state, i):
    rows = jax.random.randint(jax.random.fold_in(jax.random.key(seed + 1), i), (batch,), 0, len(x))
    return move(state, {'x': x[rows]}, (0,))[0], None

  begun = jax.jit(lambda key: init_state(method, {'base': base}, key, {'x': x[:batch]}))(jax.random.key(seed))
  return jax.jit(lambda state: jax.lax.scan(one, state, jnp.arange(steps))[0])(begun).roles


def mass(x, mode=3):
  """The share of samples nearest this mode, and the share far from all."""
  apart = np.linalg.norm(x[:, None] - np.asarray(ring.ring().means), axis=-1)
  return float(np.mean(apart.argmin(1) == mode)), float(np.mean(apart.min(1) > 0.4))
