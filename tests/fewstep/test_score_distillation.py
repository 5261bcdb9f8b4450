"""Scenes moved by scores: what is expected of each gradient in closed form, the sign of CDS, the ring, digits."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classroom import audit

from diffjax import exact, fewstep, keys, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep.flow_map import PROGRESS
from diffjax.fewstep.scenes import objects
from diffjax.fewstep.score_distillation import WEIGHTS as NOISE_WEIGHTS
from diffjax.fewstep.score_distillation import along
from diffjax.methods import Source
from diffjax.metrics import digits
from diffjax.prediction import Pred
from diffjax.pytree import PyTree
from diffjax.train.optimiser import adam
from diffjax.train.step import init_state, make_train_step
from experiments import ring as bench
from experiments.ring import ring

COSINE = schedules.cosine()
MEAN, VAR = np.array([0.7, -0.4]), 0.3
NORMAL = exact.gaussian(MEAN, VAR)
CENTRES, WEIGHTS = np.asarray(ring().means), np.exp(ring().log_weights)


class Says(NamedTuple):
  """A network that says its weights, whatever it is asked."""

  def __call__(self, params, x, t, cond=None, key=None):
    return jnp.broadcast_to(params['x'], x.shape)

  def init(self, key, x, t, cond=None):
    return {'x': jnp.zeros(x.shape[1:])}


def parts(steps=10, target=NORMAL, net=None, **options):
  net = nets.mlp(width=8, depth=1) if net is None else net
  return bench.parts(target, COSINE, 'x0', net=net, steps=steps, **options)


def unread(rows):
  """A batch whose data cannot be read."""
  return {'x': jax.ShapeDtypeStruct((rows, 2), jnp.float32)}


def moved(method, roles, rows, role='student', seed=1):
  """The gradient of a role's phase at step 0."""
  phase = next(phase for phase in method.phases if phase.role == role)

  def mean(params):
    return jnp.mean(
      phase.loss({PROGRESS: jnp.asarray(0), **roles, role: params}, unread(rows), jax.random.key(seed))[0]
    )

  return jax.jit(jax.grad(mean))(roles[role])


def at(x):
  return {'x': jnp.asarray(x, jnp.float32)[None]}


@pytest.mark.parametrize('weight', list(NOISE_WEIGHTS))
def test_the_expected_gradient_of_sds_on_a_gaussian(weight):
  """E g = w (alpha / sigma) (x - m) sigma^2 / (alpha^2 v + sigma^2), over t even on the span; 0 at the mean."""
  method = fewstep.score_distillation(parts(), scene=dict(name='particles', count=1), weight=weight, span=(0.1, 0.9))
  ts = np.linspace(0.1, 0.9, 2001)
  alpha, sigma = np.cos(np.pi * ts / 2), np.sin(np.pi * ts / 2)
  w = dict(unit=1.0, sigma2=sigma**2, alpha_sigma2=alpha * sigma**2)[weight]
  share = np.mean(w * alpha * sigma / (alpha**2 * VAR + sigma**2))
  spread = np.sqrt(np.mean((w * VAR / (alpha**2 * VAR + sigma**2) * alpha**2) ** 2))  # of g, from eps, at the mean
  rows = 4000
  for off in (np.zeros(2), np.array([1.0, -2.0])):
    got = 2 * moved(method, {'student': at(MEAN + off)}, rows)['x'][0]  # the loss is a mean over 2 dimensions
    se = (spread + 0.5 * share * np.abs(off).max()) / np.sqrt(rows)  # and from t: at most half of the mean, as here
    np.testing.assert_allclose(got, share * off, atol=4 * se)


def test_vsd_is_sds_with_a_critic_of_one_point_and_rests_where_the_critic_is_the_teacher():
  made = parts(net=Says())
  options = dict(scene=dict(name='particles', count=1))
  sds, vsd = fewstep.score_distillation(made, **options), fewstep.variational_score_distillation(made, **options)
  student = at([1.3, 0.2])
  roles = {'student': student, 'critic': {'x': student['x'][0]}}
  want = moved(sds, roles, 8)['x']
  assert np.abs(want).max() > 1e-3
  np.testing.assert_allclose(moved(vsd, roles, 8)['x'], want, rtol=1e-5)
  same = dataclasses.replace(made.teacher, denoiser=lambda _: made.denoiser(roles['critic']))
  rests = fewstep.variational_score_distillation(dataclasses.replace(made, teacher=same), **options)
  np.testing.assert_array_equal(moved(rests, roles, 8)['x'], 0)


def test_only_the_role_of_a_phase_moves_and_the_critic_learns_the_objects():
  made = parts()
  method = fewstep.variational_score_distillation(made, scene=dict(name='particles', count=3))
  roles = {**method.init(jax.random.key(0)), PROGRESS: jnp.asarray(0)}
  roles['critic'] = jax.tree.map(lambda p: p + 0.1, roles['critic'])
  for phase in method.phases:
    sizes = audit(phase.loss, roles, unread(8))
    assert sizes.pop(phase.role) > 1e-4 and max(sizes.values()) == 0
  says = fewstep.variational_score_distillation(parts(net=Says()), scene=dict(name='particles', count=1))
  assert (
    np.abs(moved(says, {'student': at([1.3, 0.2]), 'critic': {'x': jnp.array([1.3, 0.2])}}, 8, 'critic')['x']).max()
    < 1e-6
  )


@pytest.mark.parametrize('process', [COSINE, schedules.edm()], ids=['cosine', 'edm'])
def test_cds_leads_to_the_mode(process):
  """Its direction on N(0, v), of the sign of z; going against it contracts z, along it z grows."""
  target = exact.gaussian([0.0, 0.0], VAR)
  x = jnp.array([[1.0, -0.5], [0.2, 2.0]])
  eps = jnp.array([[0.3, 0.3], [-1.0, 0.5]])
  t, s = (jnp.full(2, share) * process.t_max for share in (0.5, 0.3))
  tau, tau_s = (sigma / alpha for alpha, sigma in map(process.schedule, (t, s)))
  z = x + tau[:, None] * eps
  want = z * (VAR * (tau - tau_s) / ((VAR + tau**2) * (VAR + tau_s**2)))[:, None]
  got = along(target.denoiser(process), x, eps, t, s)
  np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-6)
  assert (jnp.abs(z - got) < jnp.abs(z)).all() and (jnp.abs(z + got) > jnp.abs(z)).all()


def test_cds_is_one_path_given_its_noise():
  """z ends at the mode, so x beside it by tau eps*, whatever the draws of t; no gradient but the objects'."""
  made = parts(400, exact.gaussian([0.0, 0.0], VAR), optimiser=lambda: adam(400, 0.02, schedule='constant'))
  method = fewstep.consistent_3d(made, scene=dict(name='particles', count=2), levels=(0.5, 0.02), gap=(0.02, 0.02))
  first, again = (state_after(method, 400, 16, seed=3) for _ in range(2))
  np.testing.assert_array_equal(first.roles['student']['x'], again.roles['student']['x'])
  alpha, sigma = COSINE.schedule(0.04)
  z = first.roles['student']['x'] + sigma / alpha * first.buffers['noise']
  assert np.abs(z).max() < 0.05 < np.abs(first.roles['student']['x']).max()  # Adam's steps are of .02
  roles = {**first.roles, **first.buffers}
  assert audit(method.phases[0].loss, roles, unread(8))['noise'] == 0


def state_after(method, steps, rows, seed=0, init=None):
  step = make_train_step(method)
  active = tuple(range(len(method.phases)))

  @jax.jit
  def run():
    roles = {**method.init(jax.random.key(seed)), **(init or {})}
    state = init_state(method, roles, jax.random.key(seed + 1), unread(rows))
    return jax.lax.scan(lambda state, _: (step(state, unread(rows), active)[0], None), state, None, steps)[0]

  state = run()
  assert int(state.skipped) == 0
  return state


@pytest.mark.slow
def test_splats_are_sums_of_gaussians_seen_from_a_moved_camera():
  made = dataclasses.replace(parts(), shape=(6, 8, 2), classes=3)
  scene = objects(made, dict(name='splats', count=4, splats=2), (2, 0)).scene
  params = scene.init(jax.random.key(0))
  x = scene.render(params, jnp.array([3, 1]), keys.per_sample(jax.random.key(1), 2))
  down, right = np.meshgrid((np.arange(6) + 0.5) / 3 - 1, (np.arange(8) + 0.5) / 4 - 1, indexing='ij')
  want = np.full((6, 8, 2), -1.0)
  for centre, width, colour in zip(*(np.asarray(params[n][3]) for n in ('centre', 'log_width', 'colour')), strict=True):
    far = ((down - centre[0]) / np.exp(width[0])) ** 2 + ((right - centre[1]) / np.exp(width[1])) ** 2
    want += np.exp(-far / 2)[..., None] * colour
  np.testing.assert_allclose(x[0], want, atol=1e-5)
  far = scene._replace(shift=1.0)
  whole = far.render(
    {**params, 'colour': jnp.ones_like(params['colour'])}, jnp.zeros(64, int), keys.per_sample(jax.random.key(2), 64)
  )
  place = jnp.sum((whole + 1) * jnp.asarray(right)[..., None], (1, 2, 3)) / jnp.sum(whole + 1, (1, 2, 3))
  assert 0.1 < np.ptp(np.asarray(place)) < 0.5  # at most 2 pixels of 1/4, less what leaves the image


def test_the_generator_shows_objects_of_the_label_asked_for():
  made = parts(target=ring(np.arange(8) % 2), net=Says(), classes=2)
  method = fewstep.score_distillation(made, scene=dict(name='particles', count=5), labels=(1, 0))
  x = jnp.arange(10.0).reshape(5, 2)
  draw = method.generator({'student': {'x': x}}, None)
  cond = jnp.arange(200) % 2
  seen = np.asarray(draw(keys.per_sample(jax.random.key(0), 200), cond))[:, 0] / 2
  assert set(seen[::2]) == {1, 3} and set(seen[1::2]) == {0, 2, 4} and draw.nfe == 0
  with pytest.raises(InputError, match='label 2; allowed: those of the objects, 0, 1'):
    draw.check_cond(np.array([2]))


def test_refusals():
  cases = {
    'score_distillation': [
      (dict(scene='mesh'), "scene: got 'mesh'; allowed: particles, splats"),
      (dict(scene=dict(name='particles', size=3)), 'scene: got particles with size'),
      (dict(scene=dict(name='particles', count=0)), 'scene.count: got 0'),
      (dict(scene='splats'), r'scene: got splats for data of shape \(2,\); allowed: images'),
      (dict(scale=7.5), 'scale: got 7.5; allowed: 1'),
      (dict(labels=(3,)), r'labels: got \(3,\); allowed: those of the data, 0 in number'),
      (dict(span=(0.5, 0.2)), r'span: got \(0.5, 0.2\)'),
      (dict(weight='snr'), "weight: got 'snr'; allowed: unit, sigma2, alpha_sigma2"),
    ],
    'variational_score_distillation': [(dict(switch=2.0), 'switch: got 2.0')],
    'consistent_3d': [
      (dict(levels=(0.9, 0.1)), r'levels, gap: got \(0.9, 0.1\)'),
      (dict(clips=(0.0, 8.0)), 'clips: got'),
      (dict(scales=(100.0, 50.0)), 'scales: got'),
    ],
  }
  for name, wrong in cases.items():
    for options, message in wrong:
      with pytest.raises(InputError, match=message):
        getattr(fewstep, name)(parts(), **options)


TITLES = ('TV', 'near', 'deviation', 'log-density')


def shares(x):
  """Error of the modes' masses, share within .1 of a centre, deviation within modes, mean log-density."""
  x = np.asarray(x)
  apart = np.linalg.norm(x[:, None] - CENTRES, axis=2)
  mode, near = apart.argmin(1), apart.min(1) < 0.4
  near |= near.sum() < 8  # of all where hardly any is at a mode
  mass = np.bincount(mode, minlength=8) / len(x)
  inside = [x[near & (mode == k)] for k in range(8)]
  within = np.concatenate([part - part.mean(0) for part in inside if len(part) > 1])
  spread = np.sqrt(np.sum(within**2) / (2 * (len(within) - sum(len(part) > 1 for part in inside))))
  density = float(np.mean(ring().log_density(jnp.asarray(x))))
  return 0.5 * np.abs(mass - WEIGHTS).sum(), (apart.min(1) < 0.1).mean(), float(spread), density


@pytest.mark.slow
def test_acceptance_on_the_ring():
  """64 particles. Bounds of the specification: SDS collapses within modes, to a deviation of at most .04; VSD does not,
  and its masses are nearer; CDS ends at a mean log-density of at least that of SDS.

  VSD should come within .06 to .14 of the true deviation .1: it was .050 after 3000 steps at a rate of 5e-3, its critic
  lagging, and is asked for twice that of SDS. CDS with levels that end at .01 and gaps up to .1 was not yet at a mode
  (-26.3 against -19.5): x lies beside it by the last noise, which is therefore less here.
  """
  steps, scene = 3000, dict(name='particles', count=64)
  made = parts(steps, ring(), nets.mlp(width=128, depth=3), rate=5e-3)
  results = {}
  for name, options in dict(
    score_distillation={}, variational_score_distillation=dict(pace=0.2, late=(0.02, 0.5)),
    consistent_3d=dict(levels=(0.68, 0.005), gap=(0.005, 0.02)),
  ).items():  # fmt: skip
    method = getattr(fewstep, name)(made, scene=scene, **options)
    results[name] = shares(state_after(method, steps, 128).roles['student']['x'])
    print(name, *(f'{title} {value:.3f}' for title, value in zip(TITLES, results[name], strict=True)))
  sds, vsd, cds = results.values()
  assert sds[2] <= 0.04
  assert vsd[2] >= 2 * sds[2] and vsd[0] < sds[0]
  assert cds[3] >= sds[3]


class Images(PyTree):
  """The exact denoiser of a mixture over images, flattened."""

  flat: exact.ExactDenoiser
  null = -1

  @property
  def process(self):
    return self.flat.process

  def __call__(self, x, t, cond=None, memory=None):
    pred = self.flat(x.reshape(len(x), -1), t, cond)
    return Pred(pred.x0.reshape(x.shape), pred.eps.reshape(x.shape))


@pytest.mark.slow
def test_splats_become_the_digits_asked_for():
  """Three objects a digit of six Gaussians each; the teacher a Gaussian a digit, exact, at a scale of guidance of 3.

  Bounds of the specification: the classifier gives the digit asked for a probability of .8 on average, by all three
  methods; objects of one digit differ more by VSD than by SDS.
  """
  (images, labels), _ = digits.load()
  flat, count, steps = images.reshape(-1, 64), 30, 800
  covariances = [np.cov(flat[labels == k].T) + 0.01 * np.eye(64) for k in range(10)]
  mixture = exact.mixture(np.ones(10), [flat[labels == k].mean(0) for k in range(10)], covariances, np.arange(10))
  denoise = Images(mixture.denoiser(COSINE))
  source = Source('digits', COSINE, (8, 8, 1), 10, (), lambda _: denoise)
  options = dict(rate=2e-2, classes=10, shape=(8, 8, 1), teacher=source)
  made = parts(steps, net=nets.mlp(width=128, depth=2, classes=10), **options)
  scene, found = dict(name='splats', count=count, splats=6), {}
  for name, options in dict(
    score_distillation=dict(scale=3.0), variational_score_distillation=dict(scale=3.0, pace=0.1),
    consistent_3d=dict(scales=(3.0, 3.0), levels=(0.68, 0.05)),
  ).items():  # fmt: skip
    method = getattr(fewstep, name)(made, scene=scene, **options)
    params = state_after(method, steps, 60).roles['student']
    x = objects(made, scene).scene.render(params, jnp.arange(count), keys.per_sample(jax.random.key(0), count))
    logits = digits.forward(digits.networks()['label'], np.asarray(x))[1]
    chance = np.exp(logits - logits.max(1, keepdims=True))
    right = (chance / chance.sum(1, keepdims=True))[np.arange(count), np.arange(count) % 10].mean()
    apart = np.asarray(x).reshape(3, 10, 64).var(0).mean()
    found[name] = float(right), float(apart)
    print(f'{name}: probability of the digit {right:.3f}, variance of its three objects {apart:.4f}')
  assert min(right for right, _ in found.values()) >= 0.8
  assert found['variational_score_distillation'][1] > found['score_distillation'][1]
