"""Series and spectra have the moments of their formulas, computed here number by number; forecasts are the best."""

import numpy as np
import pytest

from diffjax.data import load

TWO = dict(length=10, channels=2, periods=(7.0, 4.0), amplitudes=(1.0, 0.5), noise=0.4, rho=0.6)


def agree(x, mean, covariance):
  """Sample moments (n, d) within six standard errors of each, those of products from the fourth moments."""
  n, away = len(x), x - mean
  assert (np.abs(away.mean(0)) < 6 * np.sqrt(np.diag(covariance) / n)).all()
  products = away[:, :, None] * away[:, None]
  assert (np.abs(products.mean(0) - covariance) < 6 * products.std(0) / np.sqrt(n)).all()


def formula(steps, channels, periods, amplitudes, noise, rho, random):
  """The covariance of x[l, c] and x[m, d], one at a time."""
  c = np.empty((steps, channels, steps, channels))
  for k, i, m, j in np.ndindex(c.shape):
    turn = [np.cos(2 * np.pi * (k - m) / p + (i - j) * np.pi / 2) for p in periods]
    season = sum(a * a / 2 * t for a, t in zip(amplitudes, turn, strict=True))
    c[k, i, m, j] = random * season + (i == j) * noise**2 * rho ** abs(k - m)
  return c.reshape(steps * channels, -1)


@pytest.mark.parametrize('phase', ['random', 'fixed'])
def test_moments_of_series(phase):
  data = load('series', phase=phase, **TWO)
  assert (data.kind, data.shape, data.classes) == ('series', (10, 2), None)
  expected = formula(10, 2, (7, 4), (1, 0.5), 0.4, 0.6, phase == 'random')
  np.testing.assert_allclose(data.law.covariances[0], expected, atol=1e-12)
  mean = np.zeros((10, 2))
  if phase == 'fixed':
    angle = 2 * np.pi * np.arange(10)[:, None]
    mean = np.sin(angle / 7 + np.array([0, np.pi / 2])) + 0.5 * np.sin(angle / 4 + np.array([0, np.pi / 2]))
  np.testing.assert_allclose(data.law.means[0], mean, atol=1e-12)
  agree(data.arrays()['x'].reshape(data.size, -1).astype(float), mean.ravel(), expected)


def test_random_phases_keep_their_amplitude():
  """Without noise a season of period 4 has x_l^2 + x_l+1^2 = a^2 at every step: its phase alone is random."""
  x = load('series', periods=(4.0,), amplitudes=(0.7,), noise=0.0, n=100).arrays()['x'][..., 0]
  np.testing.assert_allclose(x[:, 1:] ** 2 + x[:, :-1] ** 2, 0.49, atol=1e-5)
  assert np.ptp(np.arctan2(x[:, 0], x[:, 1])) > 5


def test_forecast():
  """Errors are uncorrelated with the context and have the stated covariance; x and source are one series."""
  data = load('series', context=6, **TWO)
  whole, law = data.arrays(), data.law
  assert data.others == {'source': (6, 2)} and data.shape == (10, 2) and data.keys == ('x', 'source')
  both = np.concatenate([whole['source'], whole['x']], 1).reshape(data.size, -1).astype(float)
  agree(both, law.mean.ravel(), law.covariance)
  mean, covariance = law.forecast(whole['source'])
  error = (whole['x'] - mean).reshape(data.size, -1)
  agree(error, np.zeros(20), covariance)
  source = whole['source'].reshape(data.size, -1)
  products = error[:, :, None] * source[:, None]
  assert (np.abs(products.mean(0)) < 6 * products.std(0) / np.sqrt(data.size)).all()
  assert np.trace(covariance) < 0.7 * np.trace(law.covariances[0])


def test_lags_are_channels_of_one_series():
  """Channel k at step l is channel 0 at step l less its lag; moments by the formula at those steps."""
  options = {name: value for name, value in TWO.items() if name not in ('length', 'channels')}
  data = load('series', length=6, lags=(2, 3), **options)
  x = data.arrays()['x']
  assert data.shape == (6, 3) and data.kind == 'series'
  np.testing.assert_array_equal(x[:, 2:, 1], x[:, :-2, 0])
  np.testing.assert_array_equal(x[:, 3:, 2], x[:, :-3, 0])
  whole = formula(9, 1, (7, 4), (1, 0.5), 0.4, 0.6, True)
  places = (3 + np.arange(6)[:, None] - np.array([0, 2, 3])).ravel()
  np.testing.assert_allclose(data.law.covariances[0], whole[np.ix_(places, places)], atol=1e-12)
  agree(x.reshape(data.size, -1).astype(float), np.zeros(18), data.law.covariances[0])
  for bad in (dict(lags=(0,)), dict(lags=(2,), channels=2), dict(lags=(2,), context=4)):
    with pytest.raises(ValueError, match='data.lags: got .*allowed'):
      load('series', n=1, **bad)


def test_density_of_fixed_phases():
  """Normal: -log p is on average half of d log(2 pi e) + log det; of random phases it is refused."""
  data = load('series', phase='fixed', **TWO)
  found = data.law.log_prob(data.arrays()['x'])
  c = data.law.covariances[0]
  entropy = 0.5 * (20 * np.log(2 * np.pi * np.e) + np.log(np.linalg.det(c)))
  assert abs(found.mean() + entropy) < 6 * np.sqrt(20 / 2 / data.size)  # (chi^2_20) / 2 has variance 10
  np.testing.assert_allclose(data.law.log_prob(data.law.means)[0], 10 - entropy, rtol=1e-9)
  with pytest.raises(ValueError, match='density of this law is not known'):
    load('series', n=1).law.log_prob(np.zeros((1, 48, 1)))


def test_moments_of_spectra():
  """By vowel: two humps on a slope, and the covariance of two strengths and of noise along the frames."""
  data = load('spectra', frames=5, bins=6, spread=0.4, noise=0.3, rho=0.5, n=2**14)
  whole = data.arrays()
  assert (data.kind, data.shape, data.names) == ('series', (5, 6), ('a', 'e', 'i', 'o', 'u'))
  centres = dict(a=(0.45, 0.62), e=(0.32, 0.78), i=(0.16, 0.86), o=(0.34, 0.48), u=(0.2, 0.4))
  for k, name in enumerate(data.names):
    humps = np.empty((2, 5, 6))
    for j, f, b in np.ndindex(humps.shape):
      centre = centres[name][j] + j * 0.08 * (f / 4 - 0.5)
      humps[j, f, b] = np.sin(np.pi * (f / 4 + 0.5) / 2) * np.exp(-((b / 5 - centre) ** 2) / (2 * 0.06**2))
    mean = humps.sum(0) - np.arange(6) / 10
    noise = np.array([[(b == c) * 0.09 * 0.5 ** abs(f - g) for g, c in np.ndindex(5, 6)] for f, b in np.ndindex(5, 6)])
    covariance = noise + 0.16 * sum(np.outer(h, h) for h in humps)
    np.testing.assert_allclose(data.law.means[k], mean, atol=1e-12)
    np.testing.assert_allclose(data.law.covariances[k], covariance, atol=1e-12)
    own = whole['x'][whole['cond'] == k].reshape(-1, 30).astype(float)
    assert abs(len(own) - data.size / 5) < 6 * np.sqrt(data.size * 0.16)
    agree(own, mean.ravel(), covariance)
  found = data.law.log_prob(whole['x'], whole['cond'])
  entropy = [0.5 * (30 * np.log(2 * np.pi * np.e) + np.linalg.slogdet(c)[1]) for c in data.law.covariances]
  assert abs((found + np.array(entropy)[whole['cond']]).mean()) < 6 * np.sqrt(15 / data.size)
