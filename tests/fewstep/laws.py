"""The bench of methods that match laws: teachers with weights, and training whose phases take turns in one program."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, kinds, losses, nets
from diffjax.fewstep.direction import ranks
from diffjax.methods import Sampling, Source, denoising
from diffjax.train.optimiser import adam
from diffjax.train.roles import active_phases
from diffjax.train.step import init_state, make_train_step
from experiments.ring import edm, figures, parts, ring

STD = 0.714
TINY = nets.mlp(width=8, depth=1)
LABELLED = nets.mlp(width=8, depth=1, classes=8)


def labelled():
  """The ring whose label is the mode."""
  return ring().replace(labels=jnp.arange(8))


def source_of(net, params, classes=0):
  """A network of these weights, or shapes of weights, as the teacher of a run."""
  made = parts(ring(), edm(), kinds.edm(STD), net=net, classes=classes)
  shapes = jax.eval_shape(lambda: params)
  return Source('taught', made.process, (2,), classes, shapes, made.denoiser, kinds.edm(STD), net)


def own(net=TINY, *, classes=0, steps=40, rate=1e-3, teacher='weights', schedule='cosine', **changes):
  """Parts of a run: its teacher a network like the student's, or the closed form."""
  target = labelled() if classes else ring()
  made = parts(
    target, edm(), kinds.edm(STD), net=net, classes=classes, steps=steps,
    optimiser=lambda n=steps: adam(n, rate, b1=0.0, schedule=schedule, final_fraction=0.05), **changes,
  )  # fmt: skip
  closed = Source('ring', made.process, (2,), classes, (), lambda _: target.denoiser(made.process))
  given = source_of(net, jax.eval_shape(made.init, jax.random.key(0)), classes) if teacher == 'weights' else closed
  return parts(
    target, edm(), kinds.edm(STD), net=net, classes=classes, steps=steps, teacher=given, optimiser=made.optimiser
  )


def filled(shapes, seed=0):
  """Weights of these shapes, all of them random."""
  r = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: jnp.asarray(0.3 * r.standard_normal(leaf.shape), jnp.float32), shapes)


def roles_of(method, made, seed=0):
  """Random weights in every role, and the buffers as they begin."""
  shapes = {'teacher': made.teacher.params} | jax.eval_shape(method.init, jax.random.key(0))
  for role, copy in method.copied.items():
    shapes[role] = shapes[copy.source]
  roles = {role: filled(shape, seed + i) for i, (role, shape) in enumerate(sorted(shapes.items()))}
  return roles | {name: buffer.init(jax.random.key(5)) for name, buffer in method.buffers.items()}


def blind(rows=8, classes=0):
  """A batch whose data are not numbers."""
  batch = {'x': jnp.full((rows, 2), jnp.nan)}
  return batch | ({'cond': jnp.arange(rows) % classes} if classes else {})


def trained(method, steps, *, batch=512, seed=0, given=None, target=None, labels=False, every=0, watch=None):
  """The state after so many steps, phases at their turns, in one program; what `watch` says of it each `every` steps.

  Data are not numbers unless a target draws them, by its components, with labels where they are asked for.
  """
  period = math.lcm(*(phase.every for phase in method.phases))
  step = make_train_step(method)

  def data(key):
    if target is None:
      return blind(batch)
    k_label, k_x = jax.random.split(key)
    cond = target.labels[jax.random.categorical(k_label, target.log_weights, shape=(batch,))]
    x = target.sample(keys.per_sample(k_x, batch), cond)
    return {'x': x, 'cond': cond} if labels else {'x': x}

  def begin():
    first = {**(method.init(jax.random.key(seed)) if method.init else {}), **(given or {})}
    return init_state(method, first, jax.random.key(seed + 1), data(jax.random.key(0)))

  def one(state, i):
    for j in range(period):
      drawn = data(jax.random.fold_in(jax.random.key(seed + 2), i * period + j))
      state, _ = step(state, drawn, active_phases(method, j))
    return state, None

  many = jax.jit(lambda state, ids: jax.lax.scan(one, state, ids)[0])
  state, seen, ids = jax.jit(begin)(), [], jnp.arange(steps // period)
  size = every // period if every else len(ids)
  for i in range(0, len(ids), size):
    state = many(state, ids[i : i + size])
    if watch:
      seen.append(watch(state))
  assert int(state.skipped) == 0
  return (state, seen) if watch else state


def teacher_of(net=None, *, classes=0, steps=5000, batch=512):
  """Weights of a denoiser trained on the ring, by labels where it has them."""
  net = net or nets.mlp(width=128, depth=3, classes=classes)
  made = own(net, classes=classes, steps=steps, teacher='closed')
  loss = losses.denoising(made.process, net, kinds.edm(STD), times=ranks(0.0, 1.0))
  made = parts(
    ring(), edm(), kinds.edm(STD), net=net, classes=classes, steps=steps, loss=loss, optimiser=lambda: adam(steps, 1e-3)
  )
  state = trained(denoising(made), steps, batch=batch, target=labelled(), labels=bool(classes))
  return net, state.roles['student']


def drawn(method, roles, n=20000, seed=7, cond=None, steps=1):
  """So many samples of the generator."""
  sampling = Sampling(steps, lambda: None, lambda: None, lambda denoise: denoise)
  draw = method.generator(roles, sampling)
  return np.asarray(jax.jit(lambda draw, k, cond: draw(k, cond))(draw, keys.per_sample(jax.random.key(seed), n), cond))


def measured(method, roles, **options):
  """sw, tv, off of its samples."""
  return figures(ring(), drawn(method, roles, **options))
