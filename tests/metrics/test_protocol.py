"""The protocol on sets that are read some at a time, and what its features are fitted on."""

import numpy as np
import pytest

from diffjax.metrics import nearest, protocol
from diffjax.metrics.features import Features


class Read:
  """A set on a disk: tells what was asked for at once, and how often."""

  def __init__(self, x, cond):
    self.x, self.cond, self.size, self.asked = x, cond, len(x), []

  def take(self, indices):
    self.asked.append(np.array(indices))
    return {'x': self.x[indices], 'cond': self.cond[indices]}


def images(rng, n):
  return np.tanh(rng.standard_normal((n, 4, 4, 2))).astype(np.float32)


PLANE = Features('plane', lambda x: np.reshape(x, (len(x), -1))[:, :3].astype(np.float64))


def test_a_set_that_is_read_gives_the_figures_of_one_in_memory(monkeypatch):
  """The same report to the last bit, with two chunks at most asked for in all: each once, then the near ones."""
  rng = np.random.default_rng(0)
  train, labels = images(rng, 150), np.arange(150) % 3
  held, samples, classes = images(rng, 30), images(rng, 30), np.arange(30) % 3
  rest = samples, classes, (held, classes)
  monkeypatch.setattr(nearest, 'chunk_rows', lambda numbers: 64)
  expected = protocol.evaluate(*rest, (train, labels), PLANE, subsets=2, draws=2)
  source = Read(train, labels)
  assert protocol.evaluate(*rest, source, PLANE, subsets=2, draws=2) == expected
  assert max(map(len, source.asked)) <= 64
  assert sum(len(asked) == 64 for asked in source.asked) == 2


def test_progress_is_told_of_every_long_part():
  rng = np.random.default_rng(1)
  told = []
  protocol.measure(
    images(rng, 20), None, (images(rng, 20), None), (images(rng, 40), None), PLANE, subsets=2, draws=3,
    progress=lambda name, items: told.append((name, len(items))) or items,
  )  # fmt: skip
  assert told == [('training images', 1), ('floors', 2), ('intervals', 3)]


def test_principal_components_of_a_set_in_order(monkeypatch):
  """Those of a part of a class-sorted set are those of the whole: the direction between its two classes leads."""
  rng = np.random.default_rng(2)
  apart = rng.standard_normal((4, 4, 2))
  x = 0.1 * rng.standard_normal((2000, 4, 4, 2)) + np.repeat([-1, 1], 1000)[:, None, None, None] * apart
  monkeypatch.setattr(protocol, 'FITTED', 100 * apart.size)
  source = Read(x, np.zeros(2000, int))
  features, _ = protocol.features_for('npz', source)
  assert max(map(len, source.asked)) == 100
  first = features(x)[:, 0]
  assert abs(np.mean(first[:1000]) - np.mean(first[1000:])) == pytest.approx(2, rel=0.02)
