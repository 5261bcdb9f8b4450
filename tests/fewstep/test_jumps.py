"""Jumps: x itself where t = s, exact for a constant prediction, and the published forms by their kinds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, kinds, nets, prediction, schedules
from diffjax.errors import InputError
from diffjax.fewstep.jumps import boundary, jump_from, through
from experiments.ring import STD, edm, parts, ring

PROCESSES = {'edm': schedules.edm, 'cosine': schedules.cosine, 'vp_linear': schedules.vp_linear, 'flow': schedules.flow,
             'sub_vp': schedules.sub_vp}  # fmt: skip
KINDS = {'x0': kinds.x0, 'eps': kinds.eps, 'v': kinds.v, 'velocity': kinds.velocity, 'edm': kinds.edm}
FORMS = {'through': through, 'boundary': boundary(0.5)}
rng = np.random.default_rng(0)


def times(process, n=200):
  """Pairs t > s over the whole process; alpha(t_max) = 0 left out for kinds that divide by it."""
  t, s = np.sort(rng.uniform(float(process.t_min), 0.999 * float(process.t_max), (2, n)), 0)[::-1]
  return jnp.asarray(t, jnp.float32), jnp.asarray(s, jnp.float32)


@pytest.mark.parametrize('name', PROCESSES)
def test_identity_where_it_ends_where_it_began(name):
  """Bit for bit, whatever the network says: the coefficients are exactly 1 and 0."""
  process = PROCESSES[name]()
  t, _ = times(process)
  t = t.at[0].set(process.t_min)
  for (kind, make), form in itertools.product(KINDS.items(), FORMS.values()):
    for compiled in (form, jax.jit(form)):
      a, b = compiled(process, make(), t, t)
      assert np.all(np.asarray(a) == 1) and np.all(np.asarray(b) == 0), kind


@pytest.mark.slow
def test_the_data_stay(x64):
  """At t = s = 0 too, where sigma is 0 and lam infinite: a segment may end there."""
  x = jnp.asarray(rng.standard_normal((4, 2)))
  for process, kind in ((schedules.flow(), 'velocity'), (schedules.flow(), 'x0'), (edm(), kinds.edm(STD))):
    made = parts(ring(), process, kind, net=nets.mlp(width=8, depth=1, times=2))
    params = jax.tree.map(jnp.ones_like, made.init(jax.random.key(0)))
    np.testing.assert_array_equal(jump_from(made, paired=True, end=0.0)(params, x, 0.0, 0.0), x)


@pytest.mark.parametrize('name', PROCESSES)
def test_exact_where_the_prediction_is_constant(name, x64):
  """What a network of any kind should say of (x0, eps) takes x_t to alpha_s x0 + sigma_s eps."""
  process = PROCESSES[name]()
  t, s = (u.astype(float) for u in times(process))
  x0, eps = (jnp.asarray(rng.standard_normal((200, 3))) for _ in range(2))
  x = process.perturb(x0, eps, t)
  for kind, make in KINDS.items():
    a, b = through(process, make(), t, s)
    out = prediction.target(process, make(), x0, eps, t)
    np.testing.assert_allclose(a[:, None] * x + b[:, None] * out, process.perturb(x0, eps, s), rtol=1e-8, atol=1e-8,
                               err_msg=kind)  # fmt: skip


def test_published_forms(x64):
  """MeanFlow's on flow, sCM's on the angle, CTM's and the first consistency models' on EDM's process."""
  flow, edm_process, sd = schedules.flow(), schedules.edm(), 0.5
  t, s = (u.astype(float) for u in times(flow))
  for got, want in zip(through(flow, kinds.velocity(), t, s), (jnp.ones_like(t), s - t), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-12)
  angle, end = jnp.sort(jnp.asarray(rng.uniform(0.05, 1.5, (2, 50))), 0)[::-1]
  at = lambda angle: sd * jnp.tan(angle)  # noqa: E731
  a, b = through(edm_process, kinds.edm(sd), at(angle), at(end))
  np.testing.assert_allclose(a * jnp.cos(end) / jnp.cos(angle), jnp.cos(angle - end), rtol=1e-9)  # of x cos(angle)
  np.testing.assert_allclose(b * jnp.cos(end), sd * jnp.sin(angle - end), rtol=1e-9)
  t, low = jnp.linspace(0.01, 80, 40), 0.002
  a, b = boundary(sd)(edm_process, kinds.edm(sd), t, jnp.full_like(t, low))
  np.testing.assert_allclose(a, sd**2 / ((t - low) ** 2 + sd**2), rtol=1e-9)
  np.testing.assert_allclose(b, (t - low) * sd / jnp.sqrt(t**2 + sd**2), rtol=1e-9)
  a, b = through(edm_process, kinds.x0(), t, t / 3)
  np.testing.assert_allclose(jnp.stack([a, b]), jnp.stack([1 / 3 + 0 * t, 2 / 3 + 0 * t]), rtol=1e-9)


@pytest.mark.quick('net0-x0')
@pytest.mark.parametrize(
  'net, x',
  [(nets.mlp(width=8, depth=1, times=2), np.ones((3, 2), np.float32)),
   (nets.unet(4, channel_mult=(1,), blocks_per_level=1, attention=(), times=2), np.ones((3, 4, 4, 1), np.float32))],
)  # fmt: skip
def test_networks_of_two_times(net, x):
  """One time stands for both; the second one counts; a third is refused."""
  key = jax.random.key(0)
  params = net.init(key, x, jnp.zeros(3))
  params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), params)
  t = jnp.array([1.0, 20.0, 300.0])
  twice = net(params, x, jnp.stack([t, t], -1))
  np.testing.assert_array_equal(net(params, x, t), twice)
  assert not np.allclose(net(params, x, jnp.stack([t, t / 2], -1)), twice)
  with pytest.raises(InputError, match='t: got 3 coordinates a sample; allowed: one, or 2'):
    net(params, x, jnp.ones((3, 3)))


def test_refusals():
  target, one, flow = ring(), nets.mlp(width=8, depth=1), schedules.flow()
  with pytest.raises(InputError, match='net.times: got 1, .* allowed: 2, of mlp and unet'):
    jump_from(parts(target, flow, 'velocity', net=one), paired=True)
  with pytest.raises(InputError, match='loss.kind: got one that needs a signal'):
    jump_from(parts(target, flow, 'eps', net=one))
  with pytest.raises(InputError, match='data: got those of shape'):
    jump_from(parts(target, flow, 'x0', net=one, shape={'a': (2,), 'b': (2,)}))
  with pytest.raises(InputError, match='teacher: got none'):
    fewstep.consistency_distillation(parts(target, edm(), kinds.edm(STD), net=one, teacher=None))
  with pytest.raises(InputError, match='of another process'):
    fewstep.consistency_distillation(parts(target, schedules.cosine(), 'v', net=one,
                                           teacher=parts(target, edm(), 'v', net=one).teacher))  # fmt: skip
  with pytest.raises(InputError, match='warm: got True with ring, a closed form'):
    fewstep.consistency_distillation(parts(target, edm(), kinds.edm(STD), net=one), warm=True)
  with pytest.raises(InputError, match='scale: got 2.0; allowed: 1, since the data have no labels'):
    fewstep.consistency_distillation(parts(target, edm(), kinds.edm(STD), net=one), scale=2.0)
  with pytest.raises(InputError, match='distance: got .lpips.; allowed: huber, l1, l2'):
    fewstep.consistency_distillation(parts(target, edm(), kinds.edm(STD), net=one), distance='lpips')
  with pytest.raises(InputError, match='process: got another; allowed with mean_flow: flow'):
    fewstep.mean_flow(parts(target, edm(), 'velocity', net=one))
  with pytest.raises(InputError, match='loss.kind: got another; allowed with shortcut: velocity'):
    fewstep.shortcut(parts(target, flow, 'v', net=one))
  with pytest.raises(InputError, match='loss.kind: got one that is told the time'):
    fewstep.continuous_consistency(parts(target, edm(), 'v', net=one))
  with pytest.raises(InputError, match='solver: got heun on a process whose'):
    fewstep.consistency_distillation(parts(target, flow, 'velocity', net=one))
