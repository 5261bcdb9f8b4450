"""Figures by kind: of sets whose right figures are known in closed form, and of kinds nobody has heard of."""

import json

import numpy as np
import pytest

from diffjax import data as sets
from diffjax import metrics
from diffjax.data.dataset import KINDS, Arrays, DataSet
from diffjax.data.series import Moments
from diffjax.metrics import digits, families, protocol

FEW = dict(subsets=3, draws=8)


def held_against(source, samples, train=None, **options):
  """The report on a set's own kind and law, all its examples held out."""
  held = source.arrays()
  options = FEW | options
  found = metrics.report(source.kind, samples, held, train or source, name=source.name, law=source.law, **options)
  assert json.loads(json.dumps(found)) == found
  for name, value, reference, (low, high) in metrics.lines(found):
    assert low - 1e-9 <= value <= high + 1e-9 and (reference is None or np.isfinite(reference)), name
  return found


def test_every_kind_has_figures_by_name():
  assert set(families.KINDS) == set(KINDS)
  assert {f for some in families.KINDS.values() for f in some} - {'protocol'} <= set(families.FAMILIES)
  with pytest.raises(ValueError, match="figures: got 'beauty'; allowed: protocol, general, partners"):
    metrics.report('series', np.zeros((4, 3)), {'x': np.zeros((4, 3))}, None, families=('beauty',))


def test_images_have_the_protocol_to_the_last_bit():
  (images, classes), (held, labels) = digits.load()
  train = DataSet('digits/train', Arrays(images, classes), (8, 8, 1), 10)
  held, labels, samples = held[:80], labels[:80], held[80:160]
  plain = protocol.evaluate(
    samples, labels, (held, labels), train, digits.feature_function(), classify=digits.labels, subsets=2, draws=3
  )
  batch = {'x': held, 'cond': labels}
  assert metrics.report('images', samples, batch, train, name='digits', subsets=2, draws=3) == plain
  bare = DataSet('other', Arrays(images), (8, 8, 1))
  features = protocol.features_for('other', bare)[0]
  plain = protocol.evaluate(samples, None, (held, None), bare, features, subsets=2, draws=3)
  assert metrics.report('images', samples, {'x': held}, bare, name='other', subsets=2, draws=3) == plain


@pytest.mark.parametrize('kind', ['dances', 'series'])
def test_general_figures_of_any_shape(kind):
  """Of a set moved by c the sliced distance is the root mean square of c along a direction, |c| / sqrt(d)."""
  x = np.random.default_rng(0).standard_normal((60, 2, 3, 4))
  c = np.random.default_rng(1).standard_normal((2, 3, 4))
  others = np.random.default_rng(2).standard_normal((300, 2, 3, 4))
  source = DataSet('any', Arrays(others), (2, 3, 4), kind='series')
  found = metrics.report(kind, x + c, {'x': x}, source, **FEW)
  # (u . c)^2 of 512 directions: mean |c|^2 / 24, deviation below sqrt(2) of it
  expected = np.sum(c**2) / 24
  assert abs(found['sliced_wasserstein'] ** 2 - expected) < 6 * np.sqrt(2 / 512) * expected
  assert found['energy_distance'] > 10 * abs(found['energy_distance_floor'])


@pytest.mark.parametrize('n', [2, 3])
def test_very_few_examples_are_no_error(n):
  """Without an interval where a set cannot be halved, without a floor where the training set is too small."""
  x = np.random.default_rng(0).standard_normal((n, 3, 2))
  found = metrics.report('series', x, {'x': x, 'cond': np.arange(n)}, DataSet('s', Arrays(x[:1], np.zeros(1)), (3, 2)))
  assert found['mean_error'] == 0 and 'mean_error_interval' not in found and 'mean_error_floor' not in found


def test_samples_that_are_not_finite():
  x = np.zeros((5, 3))
  with pytest.raises(ValueError, match='samples: got NaN or infinity'):
    metrics.report('series', np.full((5, 3), np.nan), {'x': x}, DataSet('s', Arrays(x), (3,)))


def test_modalities_together_and_apart():
  """Only the modality that is moved is far."""
  rng = np.random.default_rng(0)
  x = {'image': rng.standard_normal((50, 2, 2, 1)), 'label': rng.standard_normal((50, 3))}
  source = DataSet('two', Arrays(x), {k: v.shape[1:] for k, v in x.items()})
  found = held_against(source, x | {'label': x['label'] + 2})
  assert found['sliced_wasserstein_of_image'] == 0 and found['sliced_wasserstein_of_label'] > 1
  assert 0 < found['sliced_wasserstein'] < found['sliced_wasserstein_of_label']


def every_sequence(**options):
  """A chain of equal transitions: each of its sequences once is the law itself."""
  source = sets.load('chains', n=1, start=(0.5, 0.5), rows=((0.5, 0.5), (0.5, 0.5)), **options)
  return DataSet('chains', Arrays(source.law.every()[0]), source.shape, vocabulary=2, law=source.law)


def test_tokens_of_the_law_itself():
  """All 32 sequences once: every distance is 0, a token has log 2 nats, nothing lies outside."""
  source = every_sequence(length=5)
  found = held_against(source, source.arrays()['x'][::-1])
  for name in ('unigram_tv', 'bigram_tv', 'trigram_tv', 'place_tv', 'law_tv'):
    assert found[name] == pytest.approx(0, abs=1e-12)
  for name in ('log_likelihood', 'log_likelihood_exact', 'log_likelihood_heldout'):
    assert found[name] == pytest.approx(-np.log(2), rel=1e-12)
  assert found['off_support'] == found['off_support_heldout'] == 0


def test_tokens_of_another_law():
  """Sequences that begin with 1, against all: by hand. A token that there is none of lies outside the law."""
  source = every_sequence(length=2)
  found = held_against(source, np.array([[1, 0], [1, 1]] * 10))
  # tokens 3/4 ones for 1/2; half of the four pairs; places (1/2 + 0) / 2
  assert found['unigram_tv'] == pytest.approx(0.25)
  assert found['bigram_tv'] == found['law_tv'] == pytest.approx(0.5)
  assert found['place_tv'] == pytest.approx(0.25) and 'trigram_tv' not in found
  outside = held_against(source, np.array([[1, 0], [1, 2], [0, -1], [1, 1]]))
  assert outside['off_support'] == 0.5 and outside['log_likelihood'] == pytest.approx(-np.log(2))
  assert outside['law_tv'] == pytest.approx(0.5)
  assert held_against(source, np.array([[2, 2]] * 4))['bigram_tv'] == 1


def test_total_variation_of_trigrams_of_bytes():
  """Large vocabularies do not collide: (a, b, c) and its permutations are different values."""
  source = DataSet('text', Arrays(np.array([[250, 3, 9]] * 6)), (3,), vocabulary=256)
  found = held_against(source, np.array([[9, 3, 250]] * 6))
  assert (found['unigram_tv'], found['bigram_tv'], found['trigram_tv']) == (0, 1, 1)


def exactly(mean, covariance, n):
  """Samples (n, d) whose own mean and covariance (of n - 1) are these, to rounding."""
  z = np.random.default_rng(0).standard_normal((n, len(mean)))
  z -= z.mean(0)
  z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
  return mean + z @ np.linalg.cholesky(covariance).T


def test_series_against_the_moments_of_their_law():
  """Samples of exactly those moments have errors 0; moved by one deviation 1, stretched by s |s^2 - 1|."""
  law = sets.load('spectra', n=1, frames=3, bins=4).law
  labels = np.repeat([0, 3], 40)
  x = np.concatenate([exactly(law.means[k].ravel(), law.covariances[k], 40) for k in (0, 3)]).reshape(80, 3, 4)
  source = DataSet('spectra', Arrays(x, labels), (3, 4), 5, kind='series', law=law)
  found = held_against(source, x)
  for name in ('law_mean_error', 'law_covariance_error', 'mean_error', 'autocovariance_error', 'spectrum_error'):
    assert found[name] == pytest.approx(0, abs=1e-9)
  mean = law.means[labels]
  stretched = held_against(source, mean + 1.5 * (x - mean))
  assert stretched['law_covariance_error'] == pytest.approx(1.25, rel=1e-6) and stretched['law_mean_error'] < 1e-9
  deviation = np.sqrt([np.diag(law.covariances[k]).mean() for k in labels])
  moved = held_against(source, x + deviation[:, None, None])
  assert moved['law_mean_error'] == pytest.approx(1, rel=1e-6) and moved['law_covariance_error'] < 1e-9
  # -log p of d numbers: its mean is that of the law, since it is a function of these moments: (n - 1) / n of d / 2
  entropy = np.mean([0.5 * (12 * np.log(2 * np.pi) + np.linalg.slogdet(law.covariances[k])[1]) for k in (0, 3)])
  assert found['log_likelihood'] == pytest.approx(-(entropy + 6 * 39 / 40) / 12, rel=1e-9)


def test_series_against_held_out_series():
  """Twice the values are four times every covariance and the power; a shift is told in deviations."""
  source = sets.load('series', n=200, length=12)
  x = source.arrays()['x'].astype(float)
  x -= x.mean(0)
  source = DataSet('series', Arrays(x), (12, 1), kind='series')
  lagged = np.array([np.mean(x[:, : 12 - k] * x[:, k:]) for k in range(12)])
  double = held_against(source, 2 * x)
  assert double['autocovariance_error'] == pytest.approx(3 * np.sqrt(np.mean(lagged**2)) / lagged[0])
  assert double['spectrum_error'] == pytest.approx(3) and double['mean_error'] < 1e-9
  moved = held_against(source, x + 0.5)
  assert moved['mean_error'] == pytest.approx(0.5 / x.std()) and moved['autocovariance_error'] < 1e-9
  assert 'law_mean_error' not in moved and 'log_likelihood' not in moved


def test_random_phases_have_moments_and_no_likelihood():
  found = held_against(sets.load('series', n=100, length=6), sets.load('series', 'test', n=100, length=6).arrays()['x'])
  assert found['law_covariance_error'] < 3 * found['law_covariance_error_floor'] and 'log_likelihood' not in found


def test_molecules():
  """Turned, mirrored and reordered they are the same; stretched by 1.2 all distances are, and none is valid."""
  source = sets.load('molecules', n=120)
  x = source.arrays()['x'].astype(float)
  turn = np.linalg.qr(np.random.RandomState(0).standard_normal((3, 3)))[0]
  same = held_against(source, np.concatenate([x[..., :3] @ turn, x[..., 3:]], -1)[:, ::-1])
  assert same['pair_distance_w1'] < 1e-9 and same['bond_length_w1'] < 1e-9 and same['valid'] == 1
  long = held_against(source, x * [1.2, 1.2, 1.2, 1, 1, 1, 1])
  bonds = np.concatenate([np.linalg.norm(a[1:, :3] - a[:1, :3], axis=-1)[a[1:, 3] == 1] for a in x])
  assert long['bond_length_w1'] == pytest.approx(0.2 * bonds.mean())
  assert long['pair_distance_w1'] > 0.2 * bonds.mean() and long['valid'] == 0 and long['valid_heldout'] == 1
  nothing = held_against(source, np.zeros_like(x))
  assert nothing['bond_length_w1'] == pytest.approx(bonds.mean()) and nothing['valid'] == 0


def test_pairs():
  """An error of .1 everywhere is .1 and 26.02 dB; the source handed back, and data that know nothing, are worse."""
  rng = np.random.default_rng(0)
  x = rng.uniform(-1, 1, (90, 3, 3, 2)).astype(np.float32)
  source = DataSet(
    'pairs', Arrays(x, np.arange(90) % 2, {'source': x + 0.2}), (3, 3, 2), 2, others={'source': (3, 3, 2)}
  )
  others = rng.uniform(-1, 1, (300, 3, 3, 2)).astype(np.float32)
  train = DataSet('pairs', Arrays(others, np.arange(300) % 2, {'source': others}), (3, 3, 2), 2,
                  others={'source': (3, 3, 2)})  # fmt: skip
  found = held_against(source, x + 0.1, train)
  assert found['rmse'] == pytest.approx(0.1, rel=1e-5) and found['rmse_source'] == pytest.approx(0.2, rel=1e-5)
  assert found['psnr'] == pytest.approx(20 * np.log10(2 / 0.1), rel=1e-5)
  assert found['rmse_unpaired'] ** 2 == pytest.approx(2 / 3, rel=0.05)  # of two uniform numbers on (-1, 1)
  assert held_against(source, x, train)['psnr'] == 100
  # data that know nothing of the source, in the samples' place: what they are told against is what they get
  nothing = held_against(source, others[:90], train, subsets=40)
  assert nothing['psnr'] == pytest.approx(nothing['psnr_unpaired'], abs=6 * 10 / np.log(10) * 0.2 / np.sqrt(90))
  assert np.isfinite(found['frechet_floor']) and found['m'] == 90
  with pytest.raises(ValueError, match='samples: got 80; allowed: 90, one'):
    metrics.report('series', x[:80], source.arrays(), train, families=('partners',), **FEW)


def test_a_forecast():
  """Draws of the conditional law have sqrt(2) times the error of its mean, which is the law's."""
  source = sets.load('series', n=3000, length=2, context=6, phase='fixed')
  whole, law = source.arrays(), source.law
  mean, covariance = law.forecast(whole['source'])
  draws = mean + (np.random.default_rng(0).standard_normal((3000, 2)) @ np.linalg.cholesky(covariance).T)[..., None]
  found = held_against(source, draws, subsets=1, draws=0)
  assert found['rmse_forecast'] ** 2 == pytest.approx(np.trace(covariance) / 2, rel=6 * np.sqrt(2 / 3000))
  assert found['rmse'] == pytest.approx(np.sqrt(2) * found['rmse_forecast'], rel=6 * np.sqrt(1 / 3000))


def test_a_law_that_is_not_of_the_samples_labels_is_not_asked():
  """An unconditional run on data with labels: the moments by label say nothing of it."""
  law = Moments(np.zeros((2, 3, 1)), np.stack([np.eye(3)] * 2), True)
  x = np.random.default_rng(0).standard_normal((20, 3, 1))
  found = metrics.report('series', x, {'x': x}, DataSet('s', Arrays(x), (3, 1)), law=law, **FEW)
  assert 'law_mean_error' not in found and 'log_likelihood' not in found
