"""Predictor-corrector: its rows, its exact laws on Gaussians, and what it samples of a mixture."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_predictors import distance

from diffjax import keys, noise_levels, schedules, solvers
from diffjax.exact import gaussian
from diffjax.prediction import Pred, as_denoiser
from diffjax.solvers import grids, noise, predictor_corrector, reverse_diffusion, sample

C2 = 0.25
VP = schedules.vp_linear()


def ball(x, t, cond):
  """Exact x0 of N(0, .25 I) under VP linear in any dimension, at per-sample t."""
  alpha, sigma = VP.schedule(t)
  gain = alpha * C2 / (alpha**2 * C2 + sigma**2)
  return gain[:, None] * x


def test_rows():
  """Correctors first, then the predictor, at the same time; all live."""
  process = schedules.vp_linear()
  ts = grids.uniform(process, 3)
  both = predictor_corrector(process, ts, steps=2)
  np.testing.assert_allclose(both.rows.t, np.repeat(ts[:-1], 3))
  np.testing.assert_array_equal(both.rows.stage, [1, 2, 0] * 3)
  assert both.nfe == 9 and both.rows.evaluated.all() and both.stochastic and not both.skips
  np.testing.assert_array_equal(both.rows.weights[2::3], reverse_diffusion(process, ts).rows.weights[:, 0])
  assert predictor_corrector(process, ts).nfe == 6
  assert (
    predictor_corrector(process, ts, predictor='none').nfe
    == predictor_corrector(process, ts, corrector='none').nfe
    == 3
  )
  text = str(both).splitlines()
  assert text[0] == '9 rows, 9 evaluations, state x' and 'corrector' in text[1] and 'q^2 eps' in text[1]
  assert 'predictor' in text[3] and 'q' not in text[3].split('=')[-1]
  ve = schedules.ve()
  published = predictor_corrector(ve, grids.uniform(ve, 9), to_data=True)
  assert published.nfe == 20
  np.testing.assert_allclose(published.rows.t[-2:], 0)


def test_without_a_corrector_it_is_the_table():
  process, draws = schedules.vp_linear(), np.random.default_rng(0).standard_normal((6, 5, 2)).astype(np.float32)
  denoise, x = gaussian([0.2, 0.1], [[0.3, 0.1], [0.1, 0.2]]).denoiser(process), draws[0]
  for name in ('reverse_diffusion', 'ancestral'):
    ts = grids.uniform(process, 6)
    table, alone = (
      getattr(solvers, name)(process, ts),
      predictor_corrector(process, ts, predictor=name, corrector='none'),
    )
    got, want = (sample(denoise, s, x, jax.random.key(0), noise_source=noise.fixed(draws)) for s in (alone, table))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', ['vp_linear', 've', 'flow'])
def test_the_law_of_annealed_steps_is_exact(kind):
  """On a Gaussian the sample is linear in x_T and every z: unit vectors tell each weight, to 1e-4 of the largest.

  Corrector h = 2 a (r sigma)^2, x + h score + sqrt(2 h) z; predictor (2 - a) x + G^2 score + G z.
  """
  process, r, n = getattr(schedules, kind)(), 0.16, 8
  ts = np.linspace(0.95, 0.05, n + 1)
  solver = predictor_corrector(process, ts, corrector='ald', snr=r)
  rows = solver.nfe
  x, z = np.zeros((rows + 1, 1), np.float32), np.zeros((rows, rows + 1, 1), np.float32)
  x[0] = 1
  z[np.arange(rows), 1 + np.arange(rows)] = 1
  got = sample(gaussian([0.0], C2).denoiser(process), solver, x, jax.random.key(0), noise_source=noise.fixed(z))
  want = np.zeros(rows + 1)
  want[0] = 1
  alpha, sigma, _ = noise_levels.at(process, ts)
  for i in range(n):
    score = -1 / (alpha[i] ** 2 * C2 + sigma[i] ** 2)
    a = alpha[i] / alpha[i + 1]
    h, g2 = 2 * a**2 * (r * sigma[i]) ** 2, sigma[i] ** 2 - (a * sigma[i + 1]) ** 2
    want *= 1 + h * score
    want[1 + 2 * i] += np.sqrt(2 * h)
    want *= 2 - a + g2 * score
    want[2 + 2 * i] += np.sqrt(g2) if i < n - 1 else 0
  np.testing.assert_allclose(np.asarray(got)[:, 0], want, atol=1e-4 * np.abs(want).max())


def test_langevin_s_law_in_many_dimensions():
  """d = 16384: |x|^2 / d follows V' = (1 - h / v)^2 V + 2 h, h = 2 a (r sqrt d / |score|)^2, within its own deviation.

  |score| = sqrt(d V) / v with v = alpha^2 c^2 + sigma^2. One sample's |x|^2 / d has deviation sqrt(2 / d) = .011.
  """
  process, r, n, d = schedules.vp_linear(), 0.16, 6, 16384
  ts = grids.uniform(process, n, to_zero=False)
  solver = predictor_corrector(process, ts, snr=r, steps=2)
  x = np.random.default_rng(0).standard_normal((4, d)).astype(np.float32)
  x[2:] *= 1.3  # two samples start wide: each has its own step
  got = sample(as_denoiser(ball, process), solver, x, jax.random.key(1))
  alpha, sigma, _ = noise_levels.at(process, ts)
  for k, start in enumerate((1.0, 1.0, 1.69, 1.69)):
    var = start
    for i in range(n):
      v, a = alpha[i] ** 2 * C2 + sigma[i] ** 2, alpha[i] / alpha[i + 1]
      for _ in range(2):
        h = 2 * a**2 * r**2 * v**2 / var
        var = (1 - h / v) ** 2 * var + 2 * h
      g2 = sigma[i] ** 2 - (a * sigma[i + 1]) ** 2
      var = (2 - a - g2 / v) ** 2 * var + (g2 if i < n - 1 else 0)
    assert np.mean(np.asarray(got[k], np.float64) ** 2) == pytest.approx(var, rel=5 * np.sqrt(2 / d))


def first_row(solver):
  return jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], solver.rows)


def test_whose_norm_it_is():
  """h = 2 a (r E|z| / |score|)^2 with the sample's norm, or with the batch's mean norm."""
  process, ts = schedules.vp_linear(), [0.5, 0.3]
  x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
  eps = x * np.array([[1.0], [2.0], [5.0]], np.float32)
  alpha, sigma, _ = noise_levels.at(process, ts)
  size = np.linalg.norm(eps, axis=1) / sigma[0]
  mean_z = math.sqrt(2) * math.gamma(2.5) / math.gamma(2)  # d = 4
  for coupled, norm in ((False, size), (True, np.full(3, size.mean()))):
    solver = predictor_corrector(process, ts, snr=0.2, batch_coupled=coupled)
    mean, std = solver.transition(x, Pred(0 * x, eps), first_row(solver))
    h = 2 * (alpha[0] / alpha[1]) ** 2 * (0.2 * mean_z / norm) ** 2
    np.testing.assert_allclose(mean, x - h[:, None] * eps / sigma[0], rtol=1e-4)
    np.testing.assert_allclose(np.broadcast_to(std, x.shape)[:, 0], np.sqrt(2 * h), rtol=1e-5)


def test_modalities_share_a_norm_and_dtype_is_kept():
  process = schedules.vp_linear()
  solver = predictor_corrector(process, [0.5, 0.3])
  x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 6)), jnp.float32)
  parts = {'a': x[:, :2], 'b': x[:, 2:].reshape(3, 2, 2)}
  mean, std = solver.transition(x, Pred(x, x), first_row(solver))
  means, stds = solver.transition(parts, Pred(parts, parts), first_row(solver))
  np.testing.assert_allclose(means['b'].reshape(3, 4), mean[:, 2:], rtol=1e-6)
  np.testing.assert_allclose(stds['a'][:, 0], std[:, 0], rtol=1e-6)
  half = x.astype(jnp.bfloat16)
  out = solver.update(half, Pred(half, half), first_row(solver), keys.per_sample(jax.random.key(0), 3))
  assert out.dtype == jnp.bfloat16


def test_sample_k_does_not_depend_on_its_company():
  """Unless the norms are the batch's."""
  process = schedules.vp_linear()
  denoise, ts = gaussian([0.0, 0.5], C2).denoiser(process), grids.uniform(process, 5)
  x, batch = jax.random.normal(jax.random.key(0), (6, 2)), keys.per_sample(jax.random.key(1), 6)
  own = predictor_corrector(process, ts)
  full = sample(denoise, own, x, batch)
  np.testing.assert_array_equal(sample(denoise, own, x[:3], batch[:3]), full[:3])
  coupled = predictor_corrector(process, ts, batch_coupled=True)  # vmap and pmap: tests/test_properties.py
  whole = sample(denoise, coupled, x, batch)
  assert not np.allclose(sample(denoise, coupled, x[:3], batch[:3]), whole[:3], atol=1e-4)


def test_rows_of_one_time_draw_independently_from_a_brownian_path():
  process, n = VP, 5000
  solver = predictor_corrector(process, [0.8, 0.5, 0.2], corrector='ald', steps=2)
  source, batch, x = noise.brownian(solver, process), keys.per_sample(jax.random.key(0), n), jnp.zeros((n, 1))
  update = jax.jit(lambda row: solver.update(x, Pred(x, x), row, batch, source)[:, 0] / row.weights[4])
  rows = [jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf)[i], solver.rows) for i in range(5)]  # the last has no noise
  z = np.stack([update(row) for row in rows])
  np.testing.assert_allclose(z @ z.T / n, np.eye(5), atol=5 * np.sqrt(2 / n))


@pytest.mark.slow
def test_the_corrector_is_neutral_on_preserved_variance_and_no_sampler_by_itself():
  """On M1: PC at most 1.3 times the predictor at N = 100; a corrector alone ten times worse or more."""
  process, n = schedules.vp_linear(), 20000
  ts = grids.uniform(process, 100)
  alone = distance(process, reverse_diffusion(process, ts), n, 1)
  assert distance(process, predictor_corrector(process, ts, batch_coupled=True), n, 1) <= 1.3 * alone
  for name in ('vp_linear', 've'):
    process = getattr(schedules, name)()
    ts = grids.uniform(process, 100, to_zero=False)
    corrector = predictor_corrector(process, ts, predictor='none', batch_coupled=True)
    assert distance(process, corrector, 2000, 1) > 10 * 0.012  # of 2000 samples the floor is .008


@pytest.mark.slow
def test_the_corrector_helps_on_exploding_variance():
  """M1, N = 100 levels, means over three seeds of 200,000 samples; the seeds differ by .001.

  A transcription of the published loop in plain NumPy gives .0076 alone and .0033 with the corrector.
  """
  process = schedules.ve()
  ts = grids.uniform(process, 99)
  alone, both = (
    np.mean([distance(process, solver, 200_000, seed) for seed in range(3)])
    for solver in (
      reverse_diffusion(process, ts, to_data=True),
      predictor_corrector(process, ts, batch_coupled=True, to_data=True),
    )
  )
  assert both <= 0.005 and both < 0.75 * alone


def test_a_config_may_name_it():
  from diffjax.runs import experiment
  from diffjax.runs.config import from_file, override

  config = override(
    from_file('experiments/configs/digits.py'),
    ['--config.sampling.solver.name=predictor_corrector', '--config.sampling.solver.snr=.1'],
  )
  solver = experiment.build(config).solver()
  assert solver.nfe == 2 * config.sampling.steps


def test_refusals():
  process, ts = schedules.vp_linear(), [1.0, 0.5]
  for options, message in (
    ({'predictor': 'euler'}, "predictor: got 'euler'; allowed: reverse_diffusion, ancestral, none"),
    ({'corrector': 'ula'}, "corrector: got 'ula'; allowed: langevin, ald, none"),
    ({'predictor': 'none', 'corrector': 'none'}, 'predictor, corrector: got none and none'),
    ({'steps': 0}, 'steps: got 0; allowed: a whole number'),
    ({'snr': 0}, 'snr: got 0; allowed: a positive number'),
  ):
    with pytest.raises(ValueError, match=message):
      predictor_corrector(process, ts, **options)
  with pytest.raises(ValueError, match='process: got sub_vp'):
    predictor_corrector(schedules.sub_vp(), ts, predictor='ancestral')
  with pytest.raises(ValueError, match='key: got None'):
    sample(as_denoiser(ball, process), predictor_corrector(process, ts), jnp.ones((2, 3)))
