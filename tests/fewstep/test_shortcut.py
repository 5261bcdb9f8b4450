"""Shortcut models: the two half-steps and the finest step written out, and the ring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, keys, nets, schedules
from diffjax.fewstep.flow_map import drawn
from diffjax.fewstep.pairs import dyadic
from experiments import ring as bench
from experiments.ring import even, parts, ring

NET = nets.mlp(width=8, depth=1, times=2)


def test_halves_and_the_finest_step_written_out():
  """The first rows are |u - (v1 + v2) / 2|^2, v1 and v2 the target's half-steps; the others |u - (eps - x0)|^2."""
  flow, depth = schedules.flow(), 5
  made = parts(ring(), flow, 'velocity', net=NET, steps=40)
  method, key = fewstep.shortcut(made, depth=depth, share=0.5), jax.random.key(4)
  params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), made.init(key))
  roles = {'student': params, 'target': jax.tree.map(lambda p: 0.8 * p, params)}
  batch, own = {'x': jnp.tile(ring().means, (16, 1))}, keys.per_sample(key, 128)
  got, aux = method.phases[0].loss(roles, batch, own)
  assert np.isfinite(got).all() and (np.asarray(aux['t'])[64:] == 2.0**-depth).any()  # a step to the data themselves

  u = lambda params, x, t, s: NET(params, x, jnp.stack([4 * t, 4 * jnp.maximum(s, flow.t_min)], -1))  # noqa: E731
  at, point, _ = drawn(flow, dyadic(depth), roles, {'x': batch['x'][:64]}, own[:64])
  first = u(roles['target'], point.x, at.t, at.u)
  second = u(roles['target'], point.x - (at.t - at.u)[:, None] * first, at.u, at.s)
  want = jnp.mean((u(params, point.x, at.t, at.s) - (first + second) / 2) ** 2, -1)
  np.testing.assert_allclose(got[:64], want, rtol=1e-3, atol=1e-4)
  at, point, _ = drawn(flow, dyadic(depth, finest=True), roles, {'x': batch['x'][64:]}, own[64:])
  want = jnp.mean((u(params, point.x, at.t, at.s) - (point.eps - point.x0)) ** 2, -1)
  np.testing.assert_allclose(got[64:], want, rtol=1e-3)


@pytest.mark.slow
def test_steps_on_the_ring():
  """Sliced W2 <= .11, .08, .04 at 1, 4, 64 steps, none worse than fewer (.005)."""
  made = parts(ring(), schedules.flow(), 'velocity', net=nets.mlp(width=128, depth=3, times=2))
  method = fewstep.shortcut(made, share=0.25)
  roles = bench.trained(method, ring(), 5000)
  got = np.array([bench.figures(ring(), bench.drawn(method, roles, even(n))).sw for n in (1, 4, 64)])
  assert (got <= [0.11, 0.08, 0.04]).all() and (np.diff(got) <= 0.005).all()
