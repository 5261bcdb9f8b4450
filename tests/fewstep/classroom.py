"""The closed-form bench of few-step methods: targets, tiny networks, and a whole run of a method in one program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact, keys, kinds, nets
from diffjax.methods import Parts, Source
from diffjax.metrics.transport import sliced_wasserstein
from diffjax.train.optimiser import adam
from diffjax.train.step import init_state, make_train_step

ANGLES = 2 * np.pi * np.arange(8) / 8
CENTRES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
WEIGHTS = np.arange(1, 9) / 36
GAUSSIAN = exact.gaussian([0.7, -0.4], [0.3, 0.05])


def r8(labels=None):
  """Eight unequal modes of deviation .1 on the unit circle."""
  return exact.mixture(WEIGHTS, CENTRES, np.full(8, 0.01), labels)


class Slopes(NamedTuple):
  """A network that is linear in x at each of n times: what the flow of a Gaussian of diagonal covariance asks for."""

  n: int
  t_max: float

  def __call__(self, params, x, t, cond=None, key=None):
    place = jnp.round(t / 1000 / self.t_max * self.n).astype(int)
    return params['slope'][place] * x + params['bias'][place]

  def init(self, key, x, t, cond=None):
    return {name: 0.1 * jax.random.normal(key, (self.n + 1, *x.shape[1:])) for name in ('slope', 'bias')}


def closed(target, process, classes=0):
  """The closed form as a teacher."""
  return Source('exact', process, target.means.shape[1:], classes, (), lambda _: target.denoiser(process))


def parts_of(process, net, steps, teacher, kind='x0', rate=0.05, classes=0, schedule='cosine'):
  """What a config would make, by hand."""
  return Parts(
    process, kinds.as_kind(kind), net, (2,), classes, loss=lambda *_: None, loss_options={}, steps=steps,
    optimiser=lambda n=steps: adam(n, rate, schedule=schedule, final_fraction=0.02), teacher=teacher,
  )  # fmt: skip


def trained(method, target, steps, batch, seed=0, given=None, labelled=False):
  """The roles and buffers after so many steps of make_train_step on draws of the target, in one compiled program."""
  first, second, data = jax.random.split(jax.random.key(seed), 3)

  def drawn(key):
    k_label, k_x = jax.random.split(key)
    if not labelled:
      return {'x': target.sample(keys.per_sample(k_x, batch))}
    part = jax.random.categorical(k_label, target.log_weights, shape=(batch,))
    cond = target.labels[part]
    return {'x': target.sample(keys.per_sample(k_x, batch), cond), 'cond': cond}

  step = make_train_step(method)

  @jax.jit
  def run():
    roles = {**(method.init(first) if method.init else {}), **(given or {})}
    state = init_state(method, roles, second, drawn(data))
    every = tuple(range(len(method.phases)))
    move = lambda state, i: (step(state, drawn(jax.random.fold_in(data, i)), every)[0], None)  # noqa: E731
    return jax.lax.scan(move, state, jnp.arange(steps))[0]

  state = run()
  assert int(state.skipped) == 0
  return {**state.roles, **state.buffers}


def audit(loss, roles, batch):
  """The largest gradient in each role of the mean loss."""

  def mean(moved):
    return jnp.mean(loss({**roles, **moved}, batch, jax.random.key(3))[0])

  floats = {name: tree for name, tree in roles.items() if name != 'step'}
  grads = jax.jit(jax.grad(mean, allow_int=True))(floats)
  largest = lambda tree: max(  # noqa: E731
    (float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0), default=0.0
  )
  return {name: largest(tree) for name, tree in grads.items()}


def figures(x, reference):
  """Sliced Wasserstein distance, error of the modes' masses (total variation), share off every mode."""
  x = np.asarray(x)
  apart = np.linalg.norm(x[:, None] - CENTRES, axis=2)
  mass = np.bincount(apart.argmin(1), minlength=8) / len(x)
  return (
    sliced_wasserstein(np.asarray(reference), x, 64), 0.5 * np.abs(mass - WEIGHTS).sum(), (apart.min(1) > 0.4).mean()
  )  # fmt: skip


def mlp(classes=0):
  return nets.mlp(width=128, depth=3, classes=classes)
