import numpy as np
import pytest

from diffjax.metrics.features import digest, pca_features


def test_pca_whitens_what_it_was_fitted_on():
  rng = np.random.default_rng(0)
  train = rng.standard_normal((300, 4, 4, 1)) * np.append(np.arange(1, 16), 40).reshape(4, 4, 1) + 3
  features = pca_features(train, 5)
  z = features(train)
  np.testing.assert_allclose(z.mean(0), 0, atol=1e-10)
  np.testing.assert_allclose(np.cov(z.T), np.eye(5), atol=1e-10)
  # the leading direction carries the largest variance: the last pixel, of standard deviation 40
  assert abs(np.corrcoef(z[:, 0], train[:, 3, 3, 0])[0, 1]) > 0.9
  assert features.id.startswith('pixels-pca5-') and features.id != pca_features(train + 1, 5).id


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
