import json

import numpy as np
import pytest

from diffjax.metrics import digits, protocol
from diffjax.metrics.frechet import frechet
from diffjax.metrics.resample import matched


@pytest.fixture(scope='module')
def data():
  return digits.load()


@pytest.fixture(scope='module')
def reports(data):
  """The protocol on sets whose verdict is known: fresh-looking training images, copies with noise, Gaussians."""
  (images, classes), (held, labels) = data
  rng = np.random.default_rng(0)
  pick = images[matched(rng, classes, labels)]
  blurred = np.stack([images[classes == c].mean(0) for c in range(10)])[labels]
  sets = dict(train=pick, noisy=pick + 0.4 * rng.standard_normal(pick.shape), means=blurred)
  sets['held_out'] = held
  feature = digits.feature_function()
  return {
    name: protocol.evaluate(x, labels, data[1], data[0], feature, classify=digits.labels, subsets=5, draws=10)
    for name, x in sets.items()
  }


def test_split_is_the_fixed_one(data):
  train, held = digits.split()
  assert (len(train), len(held)) == (1437, 360) and len(set(train) | set(held)) == 1797
  (images, _), (held_images, held_labels) = data
  assert images.shape == (1437, 8, 8, 1) and images.dtype == np.float32 and held_images.shape == (360, 8, 8, 1)
  assert images.min() == -1 and images.max() == 1
  assert set(held_labels) == set(range(10))


def test_networks(data):
  """Label network: 98% of images it never saw. Features: standardised, bounded, all 16 directions in use."""
  (images, _), (held, labels) = data
  assert digits.WEIGHTS.stat().st_size < 300_000
  assert np.mean(digits.labels(held) == labels) >= 0.98
  z = digits.features(np.concatenate([images, held]))
  np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(z.std(0), 1, atol=1e-4)
  assert np.linalg.eigvalsh(np.cov(z.T))[0] > 0.01
  # tanh is bounded by 1: no image, however wild, lies further out than (1 + |mean|) / std
  assert np.abs(digits.features(100 * held)).max() <= 2 / 0.3


def test_numpy_forward_is_the_jax_network(data):
  from experiments.digits_features import forward

  params, held = digits.networks()['feature'], data[1][0]
  for ours, twin in zip(digits.forward(params, held), forward(params, held), strict=True):
    np.testing.assert_allclose(ours, twin, atol=1e-4)


def test_seen_and_unseen_splits_are_alike(data):
  """The feature favours neither split: class-matched halves of one split are as far apart as the two splits."""
  (images, classes), (held, labels) = data
  z, zh = digits.features(images), digits.features(held)
  rng = np.random.default_rng(1)
  within, across = [], []
  for _ in range(20):
    index = matched(rng, classes, labels)
    rest = np.setdiff1d(np.arange(len(z)), index)
    within.append(frechet(z[index], z[rest[matched(rng, classes[rest], labels)]]))
    across.append(frechet(z[index], zh))
  assert 0.6 < np.mean(across) / np.mean(within) < 1.6


@pytest.mark.slow
def test_training_images_stand_at_the_floor_and_are_caught(reports):
  report = reports['train']
  assert 0.5 < report['frechet'] / report['frechet_floor'] < 1.5
  assert report['precision'] == pytest.approx(report['precision_floor'], abs=0.05)
  assert report['recall'] == pytest.approx(report['recall_floor'], abs=0.05)
  assert report['density'] == pytest.approx(1, abs=0.2)
  assert report['kernel_distance_p'] > 0.01
  assert report['near_copies'] == 1 and report['near_copies_heldout'] < 0.15
  assert report['label_consistency'] >= 0.98


@pytest.mark.slow
def test_bad_samples_are_told(reports):
  for name in ('noisy', 'means'):
    report = reports[name]
    assert report['frechet'] > 3 * report['frechet_floor']
    assert report['kernel_distance_p'] == pytest.approx(1 / 201)
    assert report['kernel_distance_interval'][0] > report['kernel_distance_floor']
  assert reports['means']['recall'] < 0.5 * reports['means']['recall_floor']
  assert reports['noisy']['precision'] < reports['noisy']['precision_floor'] - 0.05


def test_the_held_out_images_are_no_copies_of_the_training_images(reports):
  report = reports['held_out']
  assert report['frechet'] == pytest.approx(0, abs=1e-9)
  assert report['near_copies'] == 0  # each is at distance 0 from its own image


def test_report_is_json_with_every_promised_field(reports):
  report = json.loads(json.dumps(reports['train']))
  promised = set(
    'frechet frechet_floor kernel_distance kernel_distance_interval kernel_distance_p precision recall density '
    'coverage precision_floor recall_floor label_consistency near_copies near_copies_heldout sliced_wasserstein '
    'sliced_wasserstein_floor n m features'.split()
  )
  assert promised <= set(report)
  assert report['n'] == report['m'] == 360
  for name in protocol.NAMES:
    low, high = report[f'{name}_interval']
    assert low <= report[name] <= high


def test_protocol_without_labels_and_with_other_features(data):
  from diffjax.metrics.features import pca_features

  (images, _), (held, _) = data
  features = pca_features(images)
  report = protocol.evaluate(images[:100], None, (held, None), (images, None), features, subsets=2, draws=0)
  assert report['features'] == features.id and report['m'] == 100
  assert report['frechet_interval'] is None and 'label_consistency' not in report


def test_refusals(data):
  (images, classes), (held, labels) = data
  feature = digits.feature_function()
  run = lambda x, y: protocol.evaluate(x, y, data[1], data[0], feature)  # noqa: E731
  with pytest.raises(ValueError, match='labels of samples are None'):
    run(held, None)
  with pytest.raises(ValueError, match=r'labels of samples have shape \(3,\)'):
    run(held, labels[:3])
  with pytest.raises(ValueError, match='20 samples .* more than 33'):
    run(held[:20], labels[:20])
  with pytest.raises(ValueError, match='class 0 is wanted'):
    run(held, np.zeros(360, int))
  with pytest.raises(ValueError, match=r'\(360, 16, 16, 1\)'):
    run(np.zeros((360, 16, 16, 1)), labels)
  with pytest.raises(ValueError, match='NaN'):
    run(np.full_like(held, np.nan), labels)
