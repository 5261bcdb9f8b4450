"""Variational bounds of a Gaussian, whose terms and whose sampler's law are closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.exact import gaussian
from diffjax.likelihood import continuous_bound, discrete_bound, importance_bound
from diffjax.likelihood.decoders import decoded
from diffjax.losses.times import TimeLaw
from diffjax.noise_levels import at, times_of
from diffjax.process import Process

VAR, D = 0.25, 8
LAW = gaussian(np.zeros(D), VAR)
ENTROPY = np.log(2 * np.pi * np.e * VAR) / 2


def _vdm(t):
  gamma = -13.3 + 18.3 * t
  return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))


def vdm():
  """Variance preserving, -2 lam linear from -13.3 to 5 on [0, 1]."""
  return Process(Partial(_vdm), jnp.asarray(0.0), jnp.asarray(1.0))


# the law of t under which every time says the same of a Gaussian: density ~ -lam' E|eps - eps_hat|^2
def _even(process, u):
  low, high = (jnp.log1p(VAR * jnp.exp(-g)) for g in (-13.3, 5.0))
  return (-jnp.log(jnp.expm1(low + u * (high - low)) / VAR) + 13.3) / 18.3


def _even_density(process, t):
  grow = VAR * jnp.exp(-(-13.3 + 18.3 * t))
  low, high = (jnp.log1p(VAR * jnp.exp(-g)) for g in (-13.3, 5.0))
  return 18.3 * grow / (1 + grow) / (low - high)


EVEN = TimeLaw(Partial(_even), Partial(_even_density))


def draws(n):
  return LAW.sample(keys.per_sample(jax.random.key(0), n))


def within(values, want, slack=0.0):
  """A mean of an example's figures is what it should be, to 4 standard errors; in nats a dimension."""
  each = np.asarray(values) / D
  assert abs(each.mean() - want) <= 4 * each.std() / np.sqrt(len(each)) + slack, (each.mean(), want)


def test_continuous_terms_of_a_gaussian():
  """Prior, diffusion and reconstruction as derived; their sum is the entropy, whatever the law of t."""
  x0, process = draws(1500), vdm()
  bound = continuous_bound(LAW.denoiser(process), x0, jax.random.key(1), times=EVEN, samples=4)
  within(bound.prior, 0.000848)
  within(jnp.sum(bound.diffusion, -1), 5.95601)
  within(bound.reconstruction, -5.23106)
  within(bound.total, ENTROPY)


def derived(levels, variance):
  """(KL terms a dimension) of the exact denoiser on a grid of (alpha, sigma), by the definition of each kernel."""
  (a_t, s_t), (a_s, s_s) = levels[:-1].T, levels[1:].T
  forward = s_t**2 - (a_t / a_s) ** 2 * s_s**2
  exact = forward * s_s**2 / s_t**2
  model = {'small': exact, 'large': forward}[variance]
  pull = a_s * forward / s_t**2
  off = pull**2 * VAR * s_t**2 / (a_t**2 * VAR + s_t**2)  # the error of x0_hat has the posterior's variance
  return (np.log(model / exact) + exact / model - 1 + off / model) / 2


@pytest.mark.quick('large')
@pytest.mark.parametrize('variance', ['small', 'large'])
def test_discrete_terms_of_a_gaussian(variance):
  ts = np.linspace(1, 0, 11)
  bound = discrete_bound(LAW.denoiser(vdm()), draws(3000), ts, jax.random.key(1), variance=variance)
  assert bound.diffusion.shape == (3000, 10)
  alpha, sigma, _ = at(vdm(), ts)
  want = derived(np.stack([alpha, sigma], 1), variance)
  for i in range(10):
    within(bound.diffusion[:, i], want[i], 1e-5)
  if variance == 'small':
    assert abs(want.sum() - 5.95601 - 9.7716) <= 0.01 * 9.7716  # the published gap of ten steps


def test_more_steps_tighten_the_bound():
  """The derived sums meet the published gaps at 50 to 10000 steps within 1%."""
  for steps, gap in ((50, 1.1257), (100, 0.52969), (1000, 0.05023), (10000, 0.00501)):
    alpha, sigma, _ = at(vdm(), np.linspace(1, 0, steps + 1))
    assert abs(derived(np.stack([alpha, sigma], 1), 'small').sum() - 5.95601 - gap) <= 0.01 * gap + 2e-5


@pytest.mark.parametrize(
  'k, small, large', [(10, 0.2088, 0.0772), (50, 0.8024, 0.0212), (100, 0.7995, 0.0108), (1000, 0.4564, 0.0011)]
)
def test_fixed_variances_can_be_loose(k, small, large):
  """What the bound exceeds the entropy by on strides of 1000 linear betas, with the exact decoder, as published."""
  _, _, alpha, sigma = linear_betas(k)
  prior = (alpha[0] ** 2 * VAR + sigma[0] ** 2 - 1 - np.log(sigma[0] ** 2)) / 2
  rest = np.log(2 * np.pi * np.e * exact_decoder(alpha, sigma) ** 2) / 2 - ENTROPY
  for variance, want in (('small', small), ('large', large)):
    assert abs(prior + derived(np.stack([alpha, sigma], 1), variance).sum() + rest - want) <= 1e-3


def exact_decoder(alpha, sigma):
  """The deviation of the data given the last point."""
  return float(np.sqrt(VAR * sigma[-1] ** 2 / (alpha[-1] ** 2 * VAR + sigma[-1] ** 2)))


def linear_betas(k):
  """The times at which vp_linear has the levels of 1000 linear betas, every (1000 / k)th, ending at the last."""
  alpha2 = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[::-1][:: 1000 // k]
  lam = (np.log(alpha2) - np.log1p(-alpha2)) / 2
  process = schedules.vp_linear()
  return process, times_of(process, lam), np.sqrt(alpha2), np.sqrt(1 - alpha2)


def model_nll(alpha, sigma, x0, decoder_std):
  """The law of the small-variance sampler of N(0, VAR) by its linear recursion, at x0 (n,)."""
  var = 1.0
  for a_t, s_t, a_s, s_s in zip(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:], strict=True):
    forward = s_t**2 - (a_t / a_s) ** 2 * s_s**2
    shrink = a_t * VAR / (a_t**2 * VAR + s_t**2)
    gain = a_s * forward / s_t**2 * shrink + a_t / a_s * s_s**2 / s_t**2
    var = gain**2 * var + forward * s_s**2 / s_t**2
  shrink = alpha[-1] * VAR / (alpha[-1] ** 2 * VAR + sigma[-1] ** 2)
  var = shrink**2 * var + decoder_std**2
  return (x0**2 / var + np.log(2 * np.pi * var)) / 2


@pytest.mark.slow
def test_importance_weights_tighten_the_bound_to_the_models_own_density():
  """One path is the bound; the mean grows with the paths, and ends within .005 of the sampler's own density."""
  process, ts, alpha, sigma = linear_betas(10)
  law = gaussian([0.0], VAR)
  n = 400
  x0 = jnp.asarray(np.sqrt(VAR) * np.random.default_rng(0).standard_normal((n, 1)), jnp.float32)
  std = exact_decoder(alpha, sigma)
  ask = dict(decoder_std=std)
  denoise, key = law.denoiser(process), jax.random.key(2)
  bound = discrete_bound(denoise, x0, ts, key, **ask)
  over = np.asarray(bound.total) - np.asarray(x0[:, 0] ** 2 / VAR + np.log(2 * np.pi * VAR)) / 2
  assert abs(over.mean() - 0.2088) <= 4 * over.std() / np.sqrt(n)
  log_p = {s: importance_bound(denoise, x0, ts, key, samples=s, **ask) for s in (1, 8, 400)}
  first = np.asarray(log_p[1].log_p)
  assert abs(first.mean() + bound.total.mean()) <= 4 * np.hypot(first.std(), np.std(bound.total)) / np.sqrt(n)
  means = [log_p[s].log_p.mean() for s in (1, 8, 400)]
  assert means[0] < means[1] < means[2]
  truth = -model_nll(alpha, sigma, np.asarray(x0[:, 0], np.float64), std).mean()
  assert abs(means[2] - truth) <= 0.005
  assert (log_p[400].effective <= 400).all() and (log_p[1].effective == 1).all()


def test_decoders_are_laws_on_the_levels():
  """Over all values of a component the masses sum to one, however far the mean and whatever the width."""
  values = jnp.linspace(-1, 1, 17)[:, None]
  for mean, std in ((0.1, 0.05), (-0.95, 0.02), (3.0, 0.4)):
    for network in (True, False):
      mass = np.exp(decoded(values, jnp.full_like(values, mean), std, 17, network))
      np.testing.assert_allclose(mass.sum(), 1, atol=1e-5)
  far = decoded(values, jnp.full_like(values, 0.9), 0.05, 17, network=True)
  z = np.array([(-1 + 1 / 16 - 0.9) / 0.05])
  np.testing.assert_allclose(far[0], jax.scipy.special.log_ndtr(z)[0], rtol=1e-5)  # a tail, -704 nats


def test_bad_input_is_refused_in_one_line():
  denoise, x0, key = LAW.denoiser(schedules.vp_linear()), draws(2), jax.random.key(0)
  ts = [1.0, 0.5, 0.1]
  for options, told in (
    (dict(variance='medium'), "variance: got 'medium'; allowed: small, large"),
    (dict(variance=[1.0]), r'variance: got shape \(1,\)'),
    (dict(decoder_std=-1.0), 'decoder_std: got -1.0'),
    (dict(levels=1), 'levels: got 1'),
  ):
    with pytest.raises(InputError, match=told):
      discrete_bound(denoise, x0, ts, key, **options)
  with pytest.raises(InputError, match='ts: got 0 at the end, of infinite lam'):
    discrete_bound(denoise, x0, [1.0, 0.0], key)
  for bound, more in ((continuous_bound, ()), (importance_bound, (ts,))):
    with pytest.raises(InputError, match='samples: got 0'):
      bound(denoise, x0, *more, key, samples=0)
