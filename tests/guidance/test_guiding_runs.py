"""Guidance by other runs: a weaker one and a classifier, named in a config and opened to be read only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax
from diffjax import exact, keys, schedules, solvers
from diffjax.cli import main
from diffjax.errors import InputError
from diffjax.guidance import autoguidance, classifier_guidance, experts, log_prob_of
from diffjax.methods import Source
from diffjax.methods.classifiers import Logits
from diffjax.runs import directory, record, sampling
from diffjax.runs.config import ConfigError, from_file, override
from diffjax.runs.experiment import build
from diffjax.train import sharding

TOY = 'experiments/configs/toy2d.py'
SMALL = ['--config.net.width=8', '--config.net.depth=1', '--config.train.steps=2', '--config.train.batch=16',
         '--config.mesh.data=1', '--config.data.classes=8', '--config.sampling.steps=3']  # fmt: skip
CLASSIFIER = ['--config.method=classifier', '--config.net.out_channels=8']


def made(*overrides):
  return override(from_file(TOY), [*SMALL, *overrides])


def asked(**spec):
  return f'--config.sampling.guidance=({spec!r},)'


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Three runs of two steps: a network, a weaker one, and a classifier of noisy points."""
  place = tmp_path_factory.mktemp('guides')
  for name, more in (('model', []), ('weak', ['--config.seed=1']), ('classifier', CLASSIFIER)):
    main(['train', f'--config={TOY}', f'--workdir={place / name}', *SMALL, *more])
  return place


@pytest.mark.slow
def test_a_config_names_the_runs_that_guide(runs):
  """The sampler's denoiser is the transform of the two runs' networks; ema -1 are the weights themselves."""
  x, t, cond = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2)), jnp.float32), 0.6, jnp.arange(5)
  model, weak = (diffjax.load(str(runs / name))[0] for name in ('model', 'weak'))
  draw = diffjax.generator(str(runs / 'model'), [asked(name='autoguidance', run=str(runs / 'weak'), scale=2.0)])
  want = autoguidance(model, weak, 2.0)(x, t, cond)
  np.testing.assert_allclose(draw.denoise(x, t, cond).x0, want.x0, rtol=1e-5, atol=1e-6)
  raw = diffjax.generator(
    str(runs / 'model'), [asked(name='autoguidance', run=str(runs / 'weak'), scale=2.0, ema=-1, step=2)]
  )
  assert not np.array_equal(raw.denoise(x, t, cond).x0, want.x0)
  config = override(diffjax.load(str(runs / 'model'))[2], [])
  logits = build(override(from_file(TOY), [*SMALL, *CLASSIFIER]))
  state = directory.restored(logits, str(runs / 'classifier'), sharding.make_mesh(1, 1, 1))
  read = logits.method.classifier(directory.weights(logits, state))
  spec = asked(name='classifier_guidance', run=str(runs / 'classifier'), scale=3.0)
  draw = diffjax.generator(str(runs / 'model'), [spec])
  want = classifier_guidance(model, log_prob_of(read), 3.0)(x, t, cond)
  np.testing.assert_allclose(draw.denoise(x, t, cond).x0, want.x0, rtol=1e-5, atol=1e-6)
  assert draw.cost == 2 * draw.nfe and config.data.classes == 8
  assert np.isfinite(draw(keys.per_sample(jax.random.key(0), 5), cond)).all()


@pytest.mark.slow
def test_refusals_of_runs(runs):
  model = str(runs / 'model')
  for spec, message in (
    (dict(name='autoguidance', scale=2.0, run=model, ema=3), 'ema: got 3; allowed: -1'),
    (dict(name='classifier_guidance', run=model), 'which is no classifier; allowed: a run of method classifier'),
    (dict(name='autoguidance', scale=2.0, run=str(runs / 'classifier')), 'classifier, which trains no denoiser'),
  ):
    with pytest.raises(ConfigError, match=message):
      diffjax.generator(model, [asked(**spec)])
  with pytest.raises(ConfigError, match='of another process; allowed: that of this run'):
    build(made('--config.process=cosine', asked(name='autoguidance', scale=2.0, run=model)))


def test_refusals_without_a_run(tmp_path):
  for more, message in (
    ([asked(name='autoguidance', scale=2.0)], 'autoguidance needs run, the directory of a trained run'),
    ([asked(name='autoguidance', scale=2.0, run=str(tmp_path))], 'guidance.*holds no run'),
    ([asked(name='perturbed_attention', scale=2.0)], 'is no attention of MLP; allowed: none'),
    (['--config.method=classifier'], r'net.out_channels: got 2 outputs; allowed with 8 classes: 8'),
    ([*CLASSIFIER, '--config.method.experts=0'], 'experts: got 0; allowed'),
    ([*CLASSIFIER, '--config.teacher.target=ring8'], 'teacher: got ring8, which is no classifier; allowed'),
    (['--config.method=classifier', '--config.data.classes=0'], 'with 0 classes; allowed: one shape, with labels'),
  ):
    with pytest.raises(ConfigError, match=message):
      build(made(*more))


def test_experts_by_time():
  """Each sample is read by the expert of its time, alone or in a batch of one time, and at the edges by the later."""
  made_ = experts(lambda p, x, t: p * x, jnp.asarray([1.0, 10.0, 100.0]), 3.0)
  x, t = jnp.ones((4, 2)), jnp.asarray([0.2, 1.0, 2.9, 3.0])
  np.testing.assert_array_equal(made_(x, t)[:, 0], [1, 10, 100, 100])
  np.testing.assert_array_equal(made_(x, 1.5), 10 * x)
  with pytest.raises(InputError, match='params: got leaves with first axes'):
    experts(lambda p, x, t: x, {'a': jnp.ones(2), 'b': jnp.ones(3)}, 1.0)


@pytest.mark.slow
def test_a_trained_classifier_guides_every_solver(tmp_path):
  """A ring's classifier of noisy points on the exact unconditional ring: at least 95% in the component asked for."""
  main(['train', f'--config={TOY}', f'--workdir={tmp_path}/c', '--config.data.classes=8', '--config.mesh.data=1',
        '--config.process=cosine', '--config.net.width=64', '--config.train.steps=1500', '--config.train.batch=256',
        '--config.train.optimiser.learning_rate=.003', *CLASSIFIER])  # fmt: skip
  config = override(record.read_config(f'{tmp_path}/c'), [])
  experiment = build(config)
  state = directory.restored(experiment, f'{tmp_path}/c', sharding.make_mesh(1, 1, 1))
  read = experiment.method.classifier(directory.weights(experiment, state))
  ring, process = exact.ring8(), schedules.cosine()

  class Free(exact.ExactDenoiser):
    def __call__(self, x, t, cond=None, memory=None):
      return super().__call__(x, t)

  guided = classifier_guidance(Free(ring, process), log_prob_of(read), 1.0)
  cond = jnp.arange(400) % 8
  ts = solvers.grids.uniform(process, 40)
  for table in (solvers.ddim(process, ts), solvers.dpmpp_2m(process, ts), solvers.ancestral(process, ts)):
    x = solvers.sample(guided, table, jax.random.normal(jax.random.key(0), (400, 2)), jax.random.key(1), cond)
    nearest = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - np.asarray(ring.means), axis=-1), 1)
    assert np.mean(nearest == np.asarray(cond)) >= 0.95


def test_experts_learn_in_their_ranges():
  """The loss with three experts reads the rows k, k + 3, .. at times of the k-th third, by the k-th copy."""
  experiment = build(made(*CLASSIFIER, '--config.method.experts=3', '--config.process=cosine'))
  r = np.random.default_rng(0)
  roles = jax.tree.map(lambda p: jnp.asarray(r.standard_normal(p.shape), jnp.float32), experiment.roles())
  batch = {'x': jnp.asarray(r.standard_normal((12, 2)), jnp.float32), 'cond': jnp.arange(12) % 8}
  loss, parts = experiment.method.phases[0].loss, experiment.parts

  @jax.jit
  def run(roles):
    one = Logits(parts.process, parts.kind, net=parts.net)
    same = one(jax.tree.map(lambda p: p[1], roles['student']), batch['x'], jnp.full(12, 0.5))
    key = keys.per_sample(jax.random.key(1), 12)
    return loss(roles, batch, key), experiment.method.classifier(roles)(batch['x'], 0.5), same

  (values, aux), got, want = run(roles)
  np.testing.assert_array_equal(np.floor(np.asarray(aux['t']) * 3), np.arange(12) % 3)
  assert jax.tree.leaves(roles['student'])[0].shape[0] == 3 and values.shape == (12,)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_run_takes_its_argument_s_place():
  """Of closed forms in place of runs: the transform that a config asks for is that of the network it names."""
  ring, process = exact.ring8(), schedules.flow()
  x, t, cond = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2)), jnp.float32), 0.6, jnp.arange(5)

  def read(x, t):
    return -jnp.sum((x[:, None] - ring.means) ** 2, -1)

  wide = exact.ring8(std=0.5).denoiser(process)
  source = Source('r', process, (2,), 8, (), lambda params: wide, classifier=lambda params: read)
  field = 'sampling.guidance[0]'
  for spec, want in (
    (dict(name='autoguidance', scale=2.0), autoguidance(ring.denoiser(process), wide, 2.0)),
    (dict(name='classifier_guidance'), classifier_guidance(ring.denoiser(process), log_prob_of(read))),
  ):
    config = override(from_file(TOY), [asked(run='r', **spec)])
    got = sampling.guided(config.sampling, ring.denoiser(process), {field: source}, {field: ()})
    np.testing.assert_array_equal(got(x, t, cond).x0, want(x, t, cond).x0)
