"""Closed-form targets against sampling, quadrature, Bayes on a grid and fine integration."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, schedules
from diffjax.exact import Mixture, gaussian, gaussian_flow, mixture, ring8

pytestmark = pytest.mark.usefixtures('x64')

COV = np.array([[[0.5, 0.3], [0.3, 0.4]], [[0.1, -0.05], [-0.05, 0.2]]])


def pair():
  return mixture([0.3, 0.7], [[1.0, -1.0], [-0.5, 0.8]], COV)


def gm3():
  """TB-GM3 of the guidance notes."""
  return mixture([0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)


# jitted: one compilation each, where eager operations would compile dozens
log_density, predict, tilt, observe = map(
  jax.jit, (Mixture.log_density, Mixture.predict, Mixture.tilt, Mixture.observe)
)
gradient = jax.jit(jax.grad(lambda target, x, *level: jnp.sum(target.log_density(x, *level)), argnums=1))
denoised = jax.jit(lambda denoise, x, t, cond=None: denoise(x, t, cond))


@partial(jax.jit, static_argnums=1)
def _draw(target, n, seed, cond):
  return target.sample(keys.per_sample(jax.random.key(seed), n), cond)


def draw(target, n=20000, seed=0, cond=None):
  return np.asarray(_draw(target, n, seed, cond))


def plane(half=6.0, n=241):
  """The points of a square grid, and the area of a cell."""
  axis = np.linspace(-half, half, n)
  return np.stack(np.meshgrid(axis, axis, indexing='ij'), -1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def within(values, truth, ses=4.0):
  """The mean of independent rows is `truth` up to so many standard errors."""
  values = np.asarray(values)
  se = values.std(0) / np.sqrt(len(values))
  assert np.all(np.abs(values.mean(0) - truth) <= ses * se + 1e-12), (values.mean(0), truth, se)


def test_moments_are_those_of_its_samples():
  target = pair()
  x = draw(target)
  mean, cov = np.asarray(target.mean()), np.asarray(target.covariance())
  within(x, mean)
  y = x - mean
  within(y[:, :, None] * y[:, None, :], cov)
  np.testing.assert_allclose(target.covariances, COV, atol=1e-12)


def test_draws_do_not_depend_on_the_batch():
  np.testing.assert_array_equal(draw(pair(), 8)[:3], draw(pair(), 3))


@pytest.mark.parametrize('alpha, sigma', [(1.0, 0.0), (0.8, 0.6), (0.0, 1.0)])
def test_density_integrates_to_one(alpha, sigma):
  points, area = plane()
  assert np.sum(np.exp(log_density(pair(), points, alpha, sigma))) * area == pytest.approx(1, abs=1e-6)
  line = np.linspace(-8, 8, 4001)[:, None]
  narrow = mixture([0.4, 0.6], [[-0.4], [0.3]], [0.12**2, 0.05**2])
  assert np.sum(np.exp(log_density(narrow, line, alpha, sigma))) * 16 / 4000 == pytest.approx(1, abs=1e-6)


def test_density_is_that_of_noisy_samples():
  """E log p_t over x_t = alpha x0 + sigma eps is minus the entropy, by quadrature."""
  target, alpha, sigma = pair(), 0.7, 0.5
  points, area = plane()
  log_p = np.asarray(log_density(target, points, alpha, sigma))
  z = np.random.default_rng(0).standard_normal((20000, 2))
  within(log_density(target, alpha * draw(target) + sigma * z, alpha, sigma), np.sum(np.exp(log_p) * log_p) * area)


@pytest.mark.parametrize('name', ['vp_linear', 'edm', 'flow'])
def test_score_is_the_gradient_of_the_log_density(name):
  process, target = getattr(schedules, name)(), pair()
  denoise = target.denoiser(process)
  x = draw(target, 16)
  for t in (0.05, 0.5, float(process.t_max)):
    alpha, sigma = process.schedule(jnp.asarray(t))
    pred = denoised(denoise, x, t)
    score = gradient(target, x, alpha, sigma)
    np.testing.assert_allclose(-pred.eps / sigma, score, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(alpha * pred.x0 + sigma * pred.eps, x, atol=1e-12)


def test_prediction_is_the_posterior_mean_on_a_grid():
  """E[x0 | x_t] by Bayes on a grid, at times that differ from sample to sample."""
  target = pair()
  points, _ = plane(4.0, 401)
  x, alpha, sigma = np.array([[0.2, 0.4], [-1.0, 0.3]]), np.array([0.9, 0.5]), np.array([0.4, 0.8])
  for i in range(2):
    logit = np.asarray(log_density(target, points)) - np.sum((x[i] - alpha[i] * points) ** 2, 1) / (2 * sigma[i] ** 2)
    w = np.exp(logit - logit.max())
    np.testing.assert_allclose(predict(target, x, alpha, sigma).x0[i], w @ points / w.sum(), atol=1e-6)


def test_moments_of_the_noise_are_those_on_a_grid():
  """E eps^2, E eps^3 and Var eps given x_t by Bayes on a grid; N(0, 1) given the data, x itself given pure noise."""
  target = pair()
  points, _ = plane(4.0, 401)
  x, alpha, sigma = np.array([[0.2, 0.4], [-1.0, 0.3]]), np.array([0.9, 0.5]), np.array([0.4, 0.8])
  moments = jax.jit(Mixture.moments)
  got = moments(target, x, alpha, sigma)
  for i in range(2):
    eps = (x[i] - alpha[i] * points) / sigma[i]
    logit = np.asarray(log_density(target, points)) - np.sum(eps**2, 1) / 2
    w = np.exp(logit - logit.max())
    w /= w.sum()
    for name, value in (('eps2', eps**2), ('eps3', eps**3), ('residual2', (eps - w @ eps) ** 2)):
      np.testing.assert_allclose(got[name][i], w @ value, atol=1e-6)
  for alpha, sigma, wanted in ((1.0, 0.0, (1, 0, 1)), (0.0, 1.0, (x**2, x**3, 0))):
    for value, want in zip(moments(target, x, alpha, sigma).values(), wanted, strict=True):
      np.testing.assert_allclose(value, np.broadcast_to(want, x.shape), atol=1e-12)
  process = schedules.flow()
  told, plain = (denoised(d, x, 0.4) for d in (target.moments_denoiser(process), target.denoiser(process)))
  np.testing.assert_array_equal(told.x0, plain.x0)
  np.testing.assert_array_equal(told.aux['eps'], plain.eps)
  assert plain.aux == ()
  np.testing.assert_allclose(told.aux['eps2'], moments(target, x, 0.6, 0.4)['eps2'], rtol=1e-12)


def test_prediction_at_both_ends():
  x = draw(pair(), 5)
  clean, noise = predict(pair(), x, 1.0, 0.0), predict(pair(), x, 0.0, 1.0)
  np.testing.assert_allclose(clean.x0, x, atol=1e-12)
  np.testing.assert_array_equal(clean.eps, 0)
  np.testing.assert_allclose(noise.eps, x, atol=1e-12)
  np.testing.assert_allclose(noise.x0, np.broadcast_to(pair().mean(), x.shape), atol=1e-12)


def test_given_has_the_moments_of_the_prediction():
  """Responsibilities and means average to the prediction; the variance obeys Tweedie's second-order formula."""
  target, alpha, sigma = pair(), 0.6, 0.8
  x = draw(target, 4)
  log_r, means, var = jax.jit(Mixture.posterior_parts)(target, x, alpha, sigma)
  r = np.exp(log_r)
  np.testing.assert_allclose(np.einsum('bk,bki->bi', r, means), predict(target, x, alpha, sigma).x0, atol=1e-12)
  jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda x: predict(target, x[None], alpha, sigma).x0[0])))(x)
  inside = np.einsum('kij,kj,klj->kil', target.basis, var, target.basis)
  second = np.einsum('bk,kil->bil', r, inside) + np.einsum('bk,bki,bkl->bil', r, means, means)
  mean = np.einsum('bk,bki->bi', r, means)
  np.testing.assert_allclose(second - mean[:, :, None] * mean[:, None], sigma**2 / alpha * jacobian, atol=1e-10)


def test_reward_tilt_of_the_published_mixture():
  a = np.array([0.4, 1.2])
  tilted, log_z = tilt(gm3(), a)
  np.testing.assert_allclose(np.exp(tilted.log_weights), [0.0458, 0.1360, 0.8182], atol=5e-5)
  np.testing.assert_allclose(tilted.means, np.asarray(gm3().means) + 0.25 * a, atol=1e-12)
  np.testing.assert_allclose(tilted.covariances, np.broadcast_to(0.25 * np.eye(2), (3, 2, 2)), atol=1e-12)
  assert a @ np.asarray(tilted.mean()) == pytest.approx(2.93, abs=5e-3)
  points, area = plane(8.0, 321)
  assert log_z == pytest.approx(np.log(np.sum(np.exp(log_density(gm3(), points) + points @ a)) * area), abs=1e-8)


def test_observation_of_the_published_mixture():
  posterior = observe(gm3(), [[1, 0.5]], [0.3], [[0.25]])
  np.testing.assert_allclose(np.exp(posterior.log_weights), [0.0387, 0.1961, 0.7651], atol=6e-5)
  np.testing.assert_allclose(posterior.means, [[-0.978, 0.511], [1.244, -0.378], [-0.422, 2.289]], atol=6e-4)
  np.testing.assert_allclose(posterior.mean(), [-0.118, 1.698], atol=1.5e-3)
  np.testing.assert_allclose(np.diag(posterior.covariance()), [0.604, 1.391], atol=3e-3)  # published ones are sampled


def test_posterior_and_tilt_are_bayes_on_a_grid():
  matrix, y, noise = np.array([[1.0, 0.5], [0.2, -1.0]]), np.array([0.3, -0.4]), np.array([[0.5, 0.1], [0.1, 0.3]])
  points, area = plane()
  gap = y - points @ matrix.T
  likelihood = np.asarray(log_density(pair(), points)) - np.einsum('ni,ij,nj->n', gap, np.linalg.inv(noise), gap) / 2
  bayes = likelihood - np.log(np.sum(np.exp(likelihood)) * area)
  near = bayes > -20
  np.testing.assert_allclose(log_density(observe(pair(), matrix, y, noise), points)[near], bayes[near], atol=1e-8)
  a, q = np.array([0.5, -0.2]), np.array([[0.6, 0.2], [0.2, 0.9]])
  tilted, log_z = tilt(pair(), a, q)
  joint = np.asarray(log_density(pair(), points)) + points @ a - np.einsum('ni,ij,nj->n', points, q, points) / 2
  assert log_z == pytest.approx(np.log(np.sum(np.exp(joint)) * area), abs=1e-8)
  near = joint > -20
  np.testing.assert_allclose(log_density(tilted, points)[near], (joint - log_z)[near], atol=1e-8)


def test_singular_covariance():
  """A law on the line mean + u direction: samples stay on it, predictions are finite, tilting is the 1-D formula."""
  direction, mean, var = np.array([0.6, 0.8]), np.array([1.0, 0.5]), 0.7
  target = gaussian(mean, var * np.outer(direction, direction))
  normal = np.array([0.8, -0.6])
  np.testing.assert_allclose((draw(target, 100) - mean) @ normal, 0, atol=1e-7)
  pred = predict(target, np.array([[0.3, -0.2]]), 0.8, 0.6)
  np.testing.assert_allclose((pred.x0 - mean) @ normal, 0, atol=1e-8)
  a, q = np.array([0.5, 1.5]), np.array([[2.0, 0.5], [0.5, 1.0]])
  u = np.linspace(-9, 9, 200001)
  x = mean + u[:, None] * direction
  log_w = -(u**2) / (2 * var) - np.log(2 * np.pi * var) / 2 + x @ a - np.einsum('ni,ij,nj->n', x, q, x) / 2
  w = np.exp(log_w) * (u[1] - u[0])
  tilted, log_z = tilt(target, a, q)
  assert log_z == pytest.approx(np.log(w.sum()), abs=1e-8)
  np.testing.assert_allclose(tilted.mean(), w @ x / w.sum(), atol=1e-8)
  centred = x - w @ x / w.sum()
  np.testing.assert_allclose(tilted.covariance(), (w[:, None] * centred).T @ centred / w.sum(), atol=1e-8)


@pytest.mark.parametrize('name, t, s', [('vp_linear', 0.7, 0.2), ('edm', 5.0, 0.5), ('flow', 1.0, 0.4)])
def test_exact_reverse_kernel(name, t, s):
  """Started from the law at t it has the law at s, and the forward process's covariance between the two."""
  process, target, n = getattr(schedules, name)(), pair(), 20000
  (at, st), (al, si) = (tuple(map(float, process.schedule(jnp.asarray(u)))) for u in (t, s))
  x = at * draw(target, n) + st * np.random.default_rng(1).standard_normal((n, 2))
  y = np.asarray(jax.jit(Mixture.reverse)(target, keys.per_sample(jax.random.key(5), n), process, x, t, s))
  mean = np.asarray(target.mean())
  within(y, al * mean)
  cov = al**2 * np.asarray(target.covariance()) + si**2 * np.eye(2)
  y0, x0 = y - al * mean, x - at * mean
  within(y0[:, :, None] * y0[:, None], cov)
  within(x0[:, :, None] * y0[:, None], at / al * cov)
  noise = si * np.random.default_rng(2).standard_normal((n, 2))
  fresh = np.sum((al * draw(target, n, 9) + noise - al * mean) ** 2, 1) ** 2  # a fourth moment, by fresh samples
  assert abs(np.mean(fresh - np.sum(y0**2, 1) ** 2)) <= 4 * np.sqrt(2) * fresh.std() / np.sqrt(n)


def test_labels_choose_components():
  target = mixture([0.2, 0.3, 0.5], [[-5.0], [0.0], [5.0]], [0.1] * 3, labels=[0, 1, 0])
  x = draw(target, 4000, cond=jnp.zeros(4000, jnp.int32))[:, 0]
  assert not np.any(np.abs(x) < 2)
  within((x > 0).astype(float), 5 / 7)
  denoise = target.denoiser(schedules.vp_linear())
  points = np.linspace(-2, 2, 6)[:, None]
  one, none = denoised(denoise, points, 0.5, np.ones(6, int)), denoised(denoise, points, 0.5, np.full(6, -1))
  alone = denoised(gaussian([0.0], 0.1).denoiser(denoise.process), points, 0.5)
  np.testing.assert_allclose(one.x0, alone.x0, atol=1e-12)
  np.testing.assert_allclose(none.x0, denoised(denoise, points, 0.5).x0, atol=1e-12)
  assert denoise.null == -1


@pytest.mark.parametrize('name', ['vp_linear', 'edm', 'flow'])
def test_gaussian_flow_solves_the_ode(name):
  process = getattr(schedules, name)()
  target = gaussian([0.5, -1.0], COV[0])
  denoise = target.denoiser(process)
  x = np.random.default_rng(0).standard_normal((4, 2))
  t, s, n = 0.9, 0.1, 200

  flow = jax.jit(gaussian_flow)

  @jax.jit
  def rk4(x):
    def slope(x, t):
      return process.velocity(*denoise(x, t)[:2], t)

    def step(i, x):
      h = (s - t) / n
      u = t + i * h
      a = slope(x, u)
      b = slope(x + h / 2 * a, u + h / 2)
      c = slope(x + h / 2 * b, u + h / 2)
      return x + h / 6 * (a + 2 * b + 2 * c + slope(x + h * c, u + h))

    return jax.lax.fori_loop(0, n, step, x)

  there = flow(target, process, x, t, s)
  np.testing.assert_allclose(there, rk4(x), atol=1e-7)
  halfway = flow(target, process, x, t, 0.4)
  np.testing.assert_allclose(flow(target, process, halfway, 0.4, s), there, atol=1e-12)
  np.testing.assert_allclose(flow(target, process, there, s, t), x, atol=1e-12)


@pytest.mark.parametrize('name', ['vp_linear', 'cosine', 'edm', 'flow'])
def test_float32_at_the_ends(name):
  """x0 and eps stay within 1e-5 of float64, relative to the data's spread and the noise, at either end."""
  make = getattr(schedules, name)
  z = np.random.default_rng(0).standard_normal((2, 64, 2)).astype(np.float32)
  for t in (1e-3, 0.01, 1.0):
    t = np.float32(t * make().t_max)
    x0 = draw(pair(), 64).astype(np.float32)
    alpha, sigma = (np.asarray(v, np.float32) for v in make().schedule(jnp.asarray(t, jnp.float64)))
    x = alpha * x0 + sigma * z[0]
    double = predict(pair(), x.astype(np.float64), float(alpha), float(sigma))
    with jax.enable_x64(False):
      single = predict(pair(), jnp.asarray(x), jnp.asarray(alpha), jnp.asarray(sigma))
      assert single.x0.dtype == single.eps.dtype == jnp.float32
    np.testing.assert_allclose(single.x0, double.x0, atol=1e-5)
    np.testing.assert_allclose(single.eps, double.eps, atol=1e-5)


def test_ring():
  target = ring8(radius=2.0, std=0.15)
  np.testing.assert_allclose(target.mean(), 0, atol=1e-12)
  np.testing.assert_allclose(target.covariance(), (2.0 + 0.15**2) * np.eye(2), atol=1e-12)  # radius^2 / 2
  np.testing.assert_array_equal(target.labels, np.arange(8))


def test_bad_input_names_the_field():
  for arguments, field in (
    (([0.5, 0.5], [[0.0], [1.0], [2.0]], [1, 1]), 'mixture'),
    (([0.5, -0.5], [[0.0], [1.0]], [1, 1]), 'weights'),
    (([0.0, 0.0], [[0.0], [1.0]], [1, 1]), 'weights'),
    (([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), 'covariances'),
    (([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]]), 'covariances'),
    (([1.0], [[0.0]], [-1.0]), 'covariances'),
    (([1.0], [[np.nan]], [1.0]), 'means'),
    (([0.5, 0.5], [[0.0], [1.0]], [1, 1], [0]), 'labels'),
  ):
    with pytest.raises(ValueError, match=field):
      mixture(*arguments)
  with pytest.raises(ValueError, match='target: got 2 components'):
    gaussian_flow(pair(), schedules.flow(), np.zeros((1, 2)), 1.0, 0.5)


def test_public_names_exist():
  assert all(hasattr(exact, name) for name in exact.__all__)


def test_products_keep_float32_on_accelerators():
  """Every matrix product is traced at the highest precision: tf32, the default of a GPU, is wrong by 1e-3."""
  target, one, process = ring8(), gaussian(np.zeros(2), np.eye(2)), schedules.cosine()
  x, t = jnp.zeros((2, 2)), jnp.asarray(0.5)

  def everything(target, x):
    posterior = target.observe(jnp.eye(2), x[0], jnp.eye(2))
    moved = gaussian_flow(one, process, x, t, 0.1), target.sample(keys.per_sample(jax.random.key(0), 2))
    known = target.denoiser(process)(x, t), target.moments(x, 0.8, 0.6), target.log_density(x)
    return target.covariance(), posterior.mean(), moved, known

  text = str(jax.make_jaxpr(everything)(target, x))
  assert text.count(' = dot_general[') > 5
  assert text.count('precision=(Precision.HIGHEST, Precision.HIGHEST)') == text.count(' = dot_general[')
