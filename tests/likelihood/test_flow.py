"""The log-density of the probability-flow ODE against mixtures, whose density is known at every level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.divergence import drawn, of_identity, with_trace
from diffjax.errors import InputError
from diffjax.exact import gaussian, mixture
from diffjax.likelihood import Bits, bits_per_dim, dequantised, in_bits, log_density
from diffjax.likelihood.flow import prior_log_density

GM_A = mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])
ANISO = gaussian([0.3, -0.2, 0.5], [1, 0.25, 0.01])
PROCESS = schedules.vp_linear()


def of_the_solver(target, process, x, out):
  """The error that is neither the prior's nor of the time at which x is taken to be."""
  start, end = process.schedule(process.t_min), process.schedule(process.t_max)
  model = out.log_p - prior_log_density(process, out.noise) + target.log_density(out.noise, *end)
  return np.abs(model - target.log_density(x, *start))


def test_mixture_within_a_hundredth_of_a_nat():
  """Of the data's own density, prior and t_min included; the solver's share is far less, within 110 evaluations."""
  x = GM_A.sample(keys.per_sample(jax.random.key(0), 256))
  out = log_density(GM_A.denoiser(PROCESS), x)
  assert np.abs(out.log_p - GM_A.log_density(x)).max() <= 1e-2
  assert of_the_solver(GM_A, PROCESS, x, out).max() <= 1e-3
  assert out.nfe.mean() <= 110 and out.success.all()
  few = log_density(GM_A.denoiser(PROCESS), x[:3])
  np.testing.assert_allclose(few.log_p, out.log_p[:3], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['edm', 'cosine', 'flow', 've', 'sub_vp', 'sigmoid'])
def test_other_processes_and_unequal_axes(name):
  process = getattr(schedules, name)()
  x = ANISO.sample(keys.per_sample(jax.random.key(1), 64))
  out = log_density(ANISO.denoiser(process), x)
  assert of_the_solver(ANISO, process, x, out).max() <= 1e-3 and out.success.all()


@pytest.mark.slow
def test_probes_are_unbiased_and_rademacher_varies_least():
  """64 points, 16 probes each: the mean error within 3 standard errors; Rademacher's deviation < .6 Gaussian's."""
  x = jnp.tile(GM_A.sample(keys.per_sample(jax.random.key(0), 64)), (16, 1))
  denoise, options = GM_A.denoiser(PROCESS), dict(rtol=1e-4, atol=1e-4)
  exact, std = log_density(denoise, x).log_p, {}
  for name in ('rademacher', 'gaussian'):
    out = log_density(denoise, x, jax.random.key(3), divergence=name, **options)
    error = np.asarray(out.log_p - exact)
    std[name] = error.std()
    assert abs(error.mean()) <= 3 * error.std() / np.sqrt(len(error)), name
  assert std['rademacher'] < 0.6 * std['gaussian']


def linear(matrix):
  return lambda x: (x @ matrix.T, x)


def test_traces_of_a_matrix():
  """Exact; by probes unbiased; Hutch++ exact where the rank is below m / 3, and a J + b I estimated as a whole."""
  rng = np.random.default_rng(0)
  d, n = 6, 4000
  whole = rng.standard_normal((d, d)).astype(np.float32)
  low = (rng.standard_normal((d, 2)) @ rng.standard_normal((2, d))).astype(np.float32)
  x, own = jnp.zeros((n, d)), keys.per_sample(jax.random.key(0), n)
  few, none = x[:2], drawn('exact', 1, None, x[:2])
  np.testing.assert_allclose(with_trace('exact', linear(whole), few, none)[1], np.trace(whole), rtol=1e-5)
  probes = drawn('hutchpp', 9, own[:2], few)
  np.testing.assert_allclose(with_trace('hutchpp', linear(low), few, probes)[1], np.trace(low), rtol=1e-4)
  for name, m in (('rademacher', 1), ('gaussian', 2), ('hutchpp', 6)):
    error = np.asarray(with_trace(name, linear(whole), x, drawn(name, m, own, x))[1]) - np.trace(whole)
    assert abs(error.mean()) <= 4 * error.std() / np.sqrt(n) > 0, name
  probes = drawn('gaussian', 1, own, x)
  one = with_trace('gaussian', linear(np.eye(d, dtype=np.float32)), x, probes)[1]
  np.testing.assert_allclose(one, of_identity('gaussian', probes), rtol=1e-5)


def test_every_batch_runs_one_program(compiles):
  """Another batch, key, tolerance or set of numbers of the process: nothing is compiled."""
  x = np.asarray(ANISO.sample(keys.per_sample(jax.random.key(2), 8)))
  log_density(ANISO.denoiser(PROCESS), x)
  other, more = schedules.vp_linear(0.2, 19.0), x + 1
  denoise = ANISO.denoiser(other)
  with compiles(0):
    log_density(denoise, more, rtol=1e-4)


def uniform_on(levels):
  """A flat law on the levels, with bins of their own width."""
  return np.linspace(-1, 1, levels)


def test_dequantised_values_stay_in_their_bins_and_give_the_published_offset():
  """A density of 1 / (range) over the bins is log2 levels bits; bins 2 / 256 wide add the published 7."""
  x = jnp.asarray(np.resize(uniform_on(17), (500, 4, 1)), jnp.float32)
  spread = dequantised(keys.per_sample(jax.random.key(0), 500), x, 17)
  assert (np.abs(spread - x) <= 1 / 16 + 1e-6).all() and 0.9 / 16 < np.abs(spread - x).max()
  flat = np.full(3, -4 * np.log(2 + 2 / 16))
  np.testing.assert_allclose(in_bits(flat, 4, 2 / 16), np.log2(17), rtol=1e-6)
  np.testing.assert_allclose(in_bits(np.zeros(1), 3, 2 / 256), 7.0)


def test_bits_of_a_gaussian_in_batches():
  """The entropy of N(0, diag) in bits a dimension within 4 standard errors; the last batch is padded, not counted."""
  law = gaussian(np.zeros(3), [0.5, 0.25, 0.1])
  x = np.asarray(law.sample(keys.per_sample(jax.random.key(5), 150)))
  ask = lambda n: bits_per_dim(law.denoiser(PROCESS), x, jax.random.key(0), divergence='exact', batch=n)  # noqa: E731
  one = ask(64)
  entropy = np.mean(np.log2(2 * np.pi * np.e * np.array([0.5, 0.25, 0.1]))) / 2
  assert isinstance(one, Bits) and one.n == 150 and one.given_up == 0 and one.cost == 4 * one.nfe
  assert abs(one.bits - entropy) <= 4 * one.se


def test_bad_input_is_refused_in_one_line():
  denoise, x, key = ANISO.denoiser(PROCESS), np.zeros((2, 3), np.float32), jax.random.key(0)
  for options, told in (
    (dict(divergence='hutch'), "divergence: got 'hutch'; allowed: exact, rademacher, gaussian, hutchpp"),
    (dict(divergence='gaussian', key=None), "key: got None with divergence='gaussian'"),
    (dict(divergence='hutchpp', probes=4), 'probes: got 4 with hutchpp in 3 dimensions'),
    (dict(probes=0), 'probes: got 0'),
    (dict(rtol=0.0), 'rtol, atol, data_std: got 0.0'),
    (dict(start=0.0), 'start: got 0.0; allowed: above 0'),
  ):
    with pytest.raises(InputError, match=told):
      log_density(denoise, x, **{'key': key, **options})
  with pytest.raises(InputError, match='x: got modalities a'):
    log_density(denoise, {'a': x})
  with pytest.raises(InputError, match='x: got 1 examples'):
    bits_per_dim(denoise, x[:1], key)
  with pytest.raises(InputError, match='levels: got 1'):
    dequantised(keys.per_sample(key, 2), x, 1)
