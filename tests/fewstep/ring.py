"""Benches of few-step methods: parts made by hand around a closed form, a training loop in one program, and figures.

Ring: eight modes at radius 1, std .1, weights (k + 1) / 36, on EDM's process from .01 to 10, or on rectified flow.
Figures of n samples: `sw`, the root mean square over directions of the distance W2 to fresh data (.017 for data against
data at n = 20000); `tv`, the error of the modes' masses; `off`, the share farther than .4 from every centre.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import exact, keys, kinds, nets, schedules
from diffjax.methods import Parts, Sampling, Source
from diffjax.solvers import grids
from diffjax.train.ema import constant
from diffjax.train.step import init_state, make_train_step

STD = 0.714


def ring():
  angle = 2 * np.pi * np.arange(8) / 8
  return exact.mixture(np.arange(1, 9) / 36, np.stack([np.cos(angle), np.sin(angle)], 1), np.full(8, 0.01))


def edm():
  return schedules.edm(sigma_min=0.01, sigma_max=10.0)


def parts(target, process, kind, *, net=None, steps=5000, rate=1e-3, **changes):
  """The parts of a run on a closed form, which is the teacher too."""
  shape = target.means.shape[1:]
  schedule = optax.cosine_decay_schedule(rate, steps, 0.05)
  return Parts(**(dict(
    process=process, kind=kinds.as_kind(kind), net=net or nets.mlp(width=128, depth=3), shape=shape, classes=0,
    loss=None, loss_options={}, optimiser=lambda: optax.adam(schedule), steps=steps,
    teacher=Source('ring', process, shape, 0, (), lambda _: target.denoiser(process)),
  ) | changes))  # fmt: skip


def state_of(method, seed=0, batch=8, dim=2, ema=()):
  """The state before the first step."""
  like = {'x': jax.ShapeDtypeStruct((batch, dim), jnp.float32)}
  return jax.jit(lambda key: init_state(method, method.init(key), key, like, ema))(jax.random.key(seed))


def trained(method, target, steps, *, batch=512, seed=0, decay=0.999):
  """The averaged roles after so many steps on fresh data, all of them in one program."""
  ema = (constant(decay),)
  move = make_train_step(method, ema)

  def one(state, i):
    x = target.sample(keys.per_sample(jax.random.fold_in(jax.random.key(seed + 1), i), batch))
    return move(state, {'x': x}, tuple(range(len(method.phases))))[0], None

  state = state_of(method, seed, batch, target.means.shape[1], ema)
  state = jax.jit(lambda state: jax.lax.scan(one, state, jnp.arange(steps))[0])(state)
  return {**state.roles, 'student': state.ema['student'][ema[0].name]}, state


def drawn(method, roles, ts, n=20000, seed=7):
  """n samples by jumps from these times."""
  sampling = Sampling(len(ts), lambda: np.append(ts, 0.0), lambda: None, lambda denoise: denoise)
  draw = method.generator(roles, sampling)
  return np.asarray(jax.jit(lambda draw, k: draw(k))(draw, keys.per_sample(jax.random.key(seed), n)))


def figures(target, x, seed=11):
  """Dict of sw, tv, off."""
  data = np.asarray(target.sample(keys.per_sample(jax.random.key(seed), len(x))))
  angles = np.pi * np.arange(256) / 256
  way = np.stack([np.cos(angles), np.sin(angles)])
  sw = np.sqrt(np.mean((np.sort(x @ way, 0) - np.sort(data @ way, 0)) ** 2))
  apart = np.linalg.norm(x[:, None] - np.asarray(target.means), axis=-1)
  mass = np.bincount(apart.argmin(1), minlength=8) / len(x)
  tv = 0.5 * np.abs(mass - np.exp(np.asarray(target.log_weights))).sum()
  return dict(sw=float(sw), tv=float(tv), off=float(np.mean(apart.min(1) > 0.4)))


@functools.cache
def even(n):
  """n times of rectified flow, even."""
  return tuple(grids.uniform(schedules.flow(), n)[:-1])
