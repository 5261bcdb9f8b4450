"""Guidance by a classifier of clean data, by the Jacobian and by the path: formulas, and closed forms of Gaussians."""

import gaussian_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, schedules, solvers
from diffjax.errors import InputError
from diffjax.guidance import cfg, cost, elucd, elucd_kick, feedback, gradient_free, rectified_gradient
from diffjax.prediction import Pred
from diffjax.solvers import pair_form, sample

WEIGHTS, MEANS = [0.5, 0.3, 0.2], [[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]]
TARGET = exact.mixture(WEIGHTS, MEANS, [1.0] * 3)  # classes overlap
N = 1500
Z = np.random.default_rng(0).standard_normal((N, 2)).astype(np.float32)
COND = jnp.arange(N) % 3


def bayes(x, t):
  """The log-joint of the classes at clean x."""
  return jnp.log(jnp.asarray(WEIGHTS)) - jnp.sum((x[:, None] - jnp.asarray(MEANS)) ** 2, -1) / 2


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def accuracy(x):
  return float(np.mean(np.argmax(np.asarray(bayes(jnp.asarray(x), 0.0)), 1) == np.asarray(COND)))


def test_the_most_confusable_class_is_pushed_away():
  """d_y + (scale - 1)(1 - q_y)(d_y - d_r), r the likeliest of the other classes at the predicted data."""
  process = schedules.cosine()
  denoise = TARGET.denoiser(process)
  x, t, cond = 2 * jnp.asarray(Z[:30]), 0.4, COND[:30]
  d = denoise(x, t, cond)
  q = np.array(jax.nn.softmax(bayes(d.x0, 0.0) / 2))
  own = q[np.arange(30), cond]
  q[np.arange(30), cond] = -1
  other = denoise(x, t, jnp.asarray(q.argmax(1)))
  want = [a + 3 * (1 - own)[:, None] * (a - b) for a, b in ((d.x0, other.x0), (d.eps, other.eps))]
  made = gradient_free(denoise, bayes, 4.0, 2.0)
  for got, right in zip(made(x, t, cond)[:2], want, strict=True):
    np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(gradient_free(denoise, bayes, 1.0)(x, t, cond).x0, d.x0)
  assert cost(made, t) == 3
  with pytest.raises(InputError, match='cond: got no labels'):
    made(x, t)


def test_at_equal_weight_it_is_more_accurate_than_free_guidance():
  """Overlapping classes, 30 DDIM steps: at the mean weight of its own path, at least 2 points more than `cfg`."""
  process = schedules.cosine()
  denoise, ts = TARGET.denoiser(process), solvers.grids.uniform(process, 30)
  table = solvers.ddim(process, ts)

  @jax.jit
  def weights(points):
    def one(_, at):
      x, t = at
      q = jax.nn.softmax(bayes(denoise(x, t, COND).x0, t))
      return None, jnp.mean(1 - q[jnp.arange(N), COND])

    return jnp.mean(jax.lax.scan(one, None, (points, jnp.asarray(ts[:-1])))[1])

  ours, (points, _) = solvers.trajectory(gradient_free(denoise, bayes, 5.0), table, Z, cond=COND)
  mean = 4 * float(weights(points))
  plain = sample(cfg(denoise, 1.0), table, Z, cond=COND)
  free = sample(cfg(denoise, 1.0 + mean), table, Z, cond=COND)
  assert accuracy(ours) >= accuracy(free) + 0.02 > accuracy(plain)


def test_evidence_at_the_predicted_data():
  """x0 + scale (1 + bump ..)(sigma^2/alpha) G, G of joint f_y - log sum exp(marginal f) at x0_hat; cost 2."""
  process = schedules.vp_linear()
  denoise = TARGET.denoiser(process)
  x, cond = jnp.asarray(Z[:6]), COND[:6]
  most = process.g2(0.98)
  for t in (0.3, 0.8):
    pred = denoise(x, t)
    slope = jax.grad(lambda z: jnp.sum(bayes(z, 0.0)[jnp.arange(6), cond] - jax.nn.logsumexp(0.5 * bayes(z, 0.0), -1)))
    alpha, sigma = process.schedule(t)
    gain = 2 * (1 + 0.3 * most / process.g2(t) * np.sin(np.pi * t))
    made = elucd(Free(denoise), bayes, 2.0)
    got, steep = jax.jit(lambda made, z: (made(x, t, cond).x0, slope(z)))(made, pred.x0)  # noqa: B023
    np.testing.assert_allclose(got, pred.x0 + gain * sigma**2 / alpha * steep, rtol=2e-3)
  np.testing.assert_array_equal(elucd(Free(denoise), bayes, 0.0)(x, t, cond).x0, pred.x0)
  assert cost(made, t) == 2


class Free(exact.PyTree):
  """The unconditional model, whatever the label."""

  denoise: exact.ExactDenoiser

  @property
  def process(self):
    return self.denoise.process

  def __call__(self, x, t, cond=None, memory=None):
    return self.denoise(x, t)


def test_a_flatter_marginal_guides_harder():
  """Accuracy of the class asked for, 30 steps: marginal .5 > marginal 1 > no guidance."""
  process = schedules.cosine()
  free, table = Free(TARGET.denoiser(process)), solvers.ddim(process, solvers.grids.uniform(process, 30))
  flat, sharp, none = (
    accuracy(sample(elucd(free, bayes, scale, marginal=marginal, bump=0.0), table, Z, cond=COND))
    for scale, marginal in ((0.1, 0.5), (0.1, 1.0), (0.0, 1.0))
  )
  assert flat > sharp > none + 0.2


def test_the_kick_of_edm():
  """Its root mean square is c(t) rms(x), c by the step of Karras's grid; a first-order step begins at the kicked x."""
  process = schedules.edm()
  made = elucd_kick(Free(TARGET.denoiser(process)), bayes, 1.0)
  n, x = 10, 40 * jnp.asarray(Z[:5])
  kicked = jax.jit(lambda x, t: made.kick(x, t, COND[:5]))
  ts = np.asarray(solvers.grids.karras(process, n))
  for i in (0, 3, 7):
    u = i / (n - 1)
    c = max(0.004 * (1 - u), 1e-5) + 0.3 * 0.004 * np.sin(np.pi * u)
    kick = np.asarray(kicked(x, ts[i]))
    np.testing.assert_allclose((kick**2).mean(1) / (np.asarray(x) ** 2).mean(1), c**2, rtol=2e-3)
  table = pair_form(solvers.ddim(process, ts[2:4]), process)
  moved = x + kicked(x, ts[2])
  pred = TARGET.denoiser(process)(moved, ts[2])
  want = moved + (ts[3] - ts[2]) * pred.eps
  np.testing.assert_allclose(sample(made, table, x, cond=COND[:5]), want, rtol=1e-4, atol=1e-4)


def test_the_jacobian_brings_guidance_to_the_product(x64):
  """Scale 2 of two Gaussians: the errors of mean and variance are at most .3 of those of `cfg`, by ODE and by SDE."""
  denoise = laws.several()

  @jax.jit
  def run(denoise):
    each = (cfg(denoise, 2.0), rectified_gradient(denoise, 2.0), rectified_gradient(denoise, 1.0))
    return [(laws.flow(made, 64), laws.diffusion(made, 400)) for made in each]

  free, ours, plain = run(denoise)
  product = np.asarray([1.0 / 0.9, 1 / 7.2])
  for theirs, own, start in zip(free, ours, plain, strict=True):
    error = [np.abs(np.asarray(law) - product) for law in (own, theirs)]
    assert (error[0] <= 0.3 * error[1]).all()
    np.testing.assert_allclose(start, [1, 0.25], rtol=0.03)
  assert cost(rectified_gradient(denoise, 2.0), 0.5) == 4


def test_the_path_tells_how_wrong_the_labels_were():
  """A fifth of the labels wrong: mean and variance of the clean class within .02 and 5% with 256 ancestral steps, where
  the plain model has .8 and .59; sampling error .5% and 1.4% of 10000 samples."""
  process = schedules.edm()
  p_u = exact.gaussian([0.0], [1.25])
  learned = exact.mixture([0.8, 0.2], [[1.0], [0.0]], [0.25, 1.25])
  denoise = Learned(learned, p_u, process)
  ts = solvers.grids.karras(process, 256)
  table = solvers.ancestral(process, ts)
  x = 80 * jax.random.normal(jax.random.key(0), (10000, 1))
  cond = jnp.zeros(10000, jnp.int32)
  got = np.asarray(sample(feedback(denoise, 0.2), table, x, jax.random.key(1), cond), np.float64)
  assert abs(got.mean() - 1) < 0.02 and abs(got.var() / 0.25 - 1) < 0.05


class Learned(exact.PyTree):
  """What a network learns of labels that are wrong now and then: one law with the label, another without."""

  given: exact.Mixture
  free: exact.Mixture
  process: exact.Process
  null: int = exact.struct.field(pytree_node=False, default=-1)

  def __call__(self, x, t, cond=None, memory=None):
    level = self.process.schedule(jnp.asarray(t))
    both = (law.predict(x, *level) for law in (self.given, self.free))
    return Pred(*jax.tree.map(lambda c, u: jnp.where((cond == -1)[:, None], u, c), *(tuple(p[:2]) for p in both)))


def test_what_a_path_remembers():
  """No mixing is the conditional model; log rho grows by the two kernels' log-ratio and the factor stays in bounds."""
  process = schedules.cosine()
  denoise = Learned(exact.mixture([0.8, 0.2], [[1.0], [0.0]], [0.25, 1.25]), exact.gaussian([0.0], [1.25]), process)
  x, cond = jnp.asarray([[0.3], [4.0]]), jnp.zeros(2, jnp.int32)
  y = jnp.asarray([[0.5], [-3.0]])

  @jax.jit
  def run():
    first = feedback(denoise, 0.2)(x, 0.8, cond)
    second = feedback(denoise, 0.2)(y, 0.7, cond, first.aux['memory'])
    c, u = denoise(x, 0.8, cond).x0, denoise(x, 0.8, cond - 1).x0
    (m_c, std), (m_u, _) = (process.posterior(x, x0, 0.8, 0.7) for x0 in (c, u))
    want = ((y - m_u) ** 2 - (y - m_c) ** 2)[:, 0] / (2 * jnp.ravel(std)[0] ** 2)
    plain = feedback(denoise, 0.0)(x, 0.8, cond).x0, cfg(denoise, 1.0)(x, 0.8, cond).x0
    return (first.x0, cfg(denoise, 1.25)(x, 0.8, cond).x0), (second.aux['memory']['log_rho'], want), plain

  begun, told, plain = run()
  np.testing.assert_allclose(*begun, rtol=1e-5)  # 1 / (1 - pi)
  np.testing.assert_allclose(*told, rtol=1e-3, atol=1e-5)
  np.testing.assert_array_equal(*plain)
  for options, message in (((1.0,), 'mixing: got 1.0; allowed'), ((0.2, 0.5), 'most: got 0.5; allowed')):
    with pytest.raises(InputError, match=message):
      feedback(denoise, *options)
