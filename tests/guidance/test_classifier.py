"""Classifier guidance with an exact classifier is classifier-free guidance, pointwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import schedules
from diffjax.guidance import cfg, classifier_guidance, cost
from diffjax.prediction import predict

MEANS = np.asarray([[-2, 0], [2, 0], [0, 2.5]])
WEIGHTS = np.asarray([0.5, 0.3, 0.2])
PROCESSES = {'cosine': schedules.cosine, 'flow': schedules.flow, 'edm': schedules.edm}
SCALE = 2.5


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def log_joint(process, x, t):
  """log pi_k N(x; alpha m_k, alpha^2 / 4 + sigma^2), (B, 3)."""
  alpha, sigma = (c.reshape(-1, 1) for c in process.schedule(jnp.asarray(t)))
  var = alpha**2 * 0.25 + sigma**2
  distance = jnp.sum((x[:, None] - alpha[..., None] * jnp.asarray(MEANS)) ** 2, -1)
  return jnp.log(jnp.asarray(WEIGHTS)) - distance / (2 * var) - jnp.log(var)


def log_prob(process, x, t, cond):
  return jnp.take_along_axis(jax.nn.log_softmax(log_joint(process, x, t)), cond[:, None], 1)[:, 0]


class Exact:
  """The mixture's exact denoiser by its score: class `cond`, or (label 3, or none) the whole mixture."""

  null = 3

  def __init__(self, process, conditional=True):
    self.process, self.conditional = process, conditional

  def __call__(self, x, t, cond=None, memory=None):
    def log_density(x):
      joint = log_joint(self.process, x, t)
      if cond is not None and self.conditional:
        joint = jnp.where((cond[:, None] == jnp.arange(3)) | (cond[:, None] == 3), joint, -jnp.inf)
      return jnp.sum(jax.nn.logsumexp(joint, axis=1))

    return predict(self.process, 'score', x, t, jax.grad(log_density)(x))


def points(process, n=60):
  rng = np.random.default_rng(0)
  t = jnp.linspace(0.05, 0.95, n) * process.t_max
  x0 = MEANS[rng.integers(0, 3, n)] + 0.5 * rng.normal(size=(n, 2))
  x = process.perturb(jnp.asarray(x0), jnp.asarray(rng.normal(size=(n, 2))), t)
  return x, t, jnp.asarray(rng.integers(0, 3, n), jnp.int32)


@pytest.mark.parametrize('process', ['cosine', 'edm'])
def test_exact_classifier_is_free_guidance(process, x64):
  """Unconditional base: scale w is CFG's w, and 1 the conditional prediction itself; conditional base: w + 1."""
  process = PROCESSES[process]()
  x, t, cond = points(process)
  classify = Partial(log_prob, process)
  whole, exact = Exact(process, conditional=False), Exact(process)
  pairs = [
    (classifier_guidance(whole, classify, 1.0), exact),
    (classifier_guidance(whole, classify, SCALE), cfg(exact, SCALE)),
    (classifier_guidance(exact, classify, SCALE), cfg(exact, SCALE + 1)),
  ]
  for got, want in jax.jit(lambda *at: [(a(*at), b(*at)) for a, b in pairs])(x, t, cond):
    np.testing.assert_allclose(got.x0, want.x0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.eps, want.eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('process', PROCESSES)
def test_pairs_stay_consistent(process):
  """alpha x0 + sigma eps = x, also with a wrong classifier; where alpha = 0 the prediction stays as it is."""
  process = PROCESSES[process]()
  x, t, cond = points(process)
  x, t = x.astype(jnp.float32), t.astype(jnp.float32)
  guided = classifier_guidance(Exact(process, conditional=False), wrong, 0.7)
  pred, plain = jax.jit(lambda *at: (guided(*at), guided.denoise(*at)))(x, t, cond)
  scale = 1 + np.abs(process.schedule(t)[0])[:, None] * np.abs(pred.x0)
  assert (np.abs(process.perturb(pred.x0, pred.eps, t) - x) < 1e-5 * scale).all()
  assert not np.allclose(pred.x0, plain.x0)


def wrong(x, t, cond):
  return -jnp.sum((x - cond[:, None]) ** 2, axis=1) / (1 + t)


def test_no_signal_no_guidance():
  flow = schedules.flow()

  class Zero:
    process = flow

    def __call__(self, x, t, cond=None, memory=None):
      return predict(flow, 'x0', x, t, jnp.zeros_like(x))

  x, cond = jnp.ones((2, 2)), jnp.zeros(2, jnp.int32)
  pred = classifier_guidance(Zero(), wrong, 3.0)(x, 1.0, cond)
  np.testing.assert_array_equal(pred.x0, 0 * x)
  np.testing.assert_array_equal(pred.eps, x)


@pytest.mark.slow
def test_scale_by_time_sample_and_cost():
  process = schedules.cosine()
  x, t, cond = points(process, 8)
  base = Exact(process, conditional=False)
  classify = Partial(log_prob, process)
  scales = jnp.linspace(0, 3, 8)
  run = jax.jit(lambda scale: classifier_guidance(base, classify, scale)(x, t, cond).eps)
  rows = [run(s)[i] for i, s in enumerate(scales)]
  np.testing.assert_allclose(run(scales), rows, rtol=1e-4, atol=1e-5)
  by_time = classifier_guidance(base, classify, Partial(jnp.interp, xp=t, fp=scales))
  np.testing.assert_allclose(by_time(x, t, cond).eps, rows, rtol=1e-4, atol=1e-5)
  assert cost(by_time, 0.5) == 2 and cost(cfg(by_time, 2.0, null=3), 0.5) == 4


def test_condition_is_needed():
  guided = classifier_guidance(Exact(schedules.flow()), wrong)
  with pytest.raises(ValueError, match='cond: got None'):
    guided(jnp.ones((2, 2)), 0.5)
