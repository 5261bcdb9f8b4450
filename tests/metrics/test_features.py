import numpy as np
import pytest

from diffjax.fingerprint import digest
from diffjax.metrics import features
from diffjax.metrics.features import pca_features


def test_pca_whitens_what_it_was_fitted_on():
  rng = np.random.default_rng(0)
  train = rng.standard_normal((300, 4, 4, 1)) * np.append(np.arange(1, 16), 40).reshape(4, 4, 1) + 3
  of_five = pca_features(train, 5)
  z = of_five(train)
  np.testing.assert_allclose(z.mean(0), 0, atol=1e-10)
  np.testing.assert_allclose(np.cov(z.T), np.eye(5), atol=1e-10)
  # the leading direction carries the largest variance: the last pixel, of standard deviation 40
  assert abs(np.corrcoef(z[:, 0], train[:, 3, 3, 0])[0, 1]) > 0.9
  assert of_five.id.startswith('pixels-pca5-') and of_five.id != pca_features(train + 1, 5).id


def test_pca_refuses_more_directions_than_there_are():
  with pytest.raises(ValueError, match='d = 4 .* 3 directions, allowed is 1..3'):
    pca_features(np.random.default_rng(1).standard_normal((4, 9)), 4)


def test_digest_sees_names_shapes_and_values():
  a = dict(w=np.arange(4.0), b=np.zeros(2))
  variants = [
    dict(w=np.arange(4.0), c=np.zeros(2)),
    dict(w=np.arange(4.0).reshape(2, 2), b=np.zeros(2)),
    dict(w=np.arange(4.0) + 1e-12, b=np.zeros(2)),
  ]
  assert digest(a) == digest(dict(reversed(a.items())))
  assert len({digest(v) for v in [a, *variants]}) == 4


@pytest.mark.parametrize('shape', [(40, 60), (60, 40)])
def test_leading_components_of_a_large_set_are_those_of_the_whole_decomposition(shape, monkeypatch):
  rng = np.random.default_rng(2)
  train = rng.standard_normal(shape) * np.linspace(3, 0.1, shape[1])
  whole = features.pca_features(train, 5)
  monkeypatch.setattr(features, 'WHOLE', 8)
  few = features.pca_features(train, 5)
  assert few.id == whole.id
  np.testing.assert_allclose(few(train), whole(train), atol=1e-8)
  flat = train[:, :1] * np.ones(shape[1])
  with pytest.raises(ValueError, match='vary in 1 directions'):
    features.pca_features(flat, 5)


def test_features_of_many_images_are_those_of_each(monkeypatch):
  seen = []
  monkeypatch.setattr(features, 'AT_ONCE', 4)
  f = features.Features('double', lambda x: seen.append(len(x)) or 2.0 * x)
  np.testing.assert_array_equal(f(np.arange(10.0)[:, None]), 2 * np.arange(10.0)[:, None])
  assert seen == [4, 4, 2]
