"""Batch i is a pure function of (seed, i): epochs are permutations, a resume replays nothing, hosts add up."""

import itertools
import time

import numpy as np
import pytest

from diffjax.data import DataSet, augment, batches, pipeline
from diffjax.data.dataset import Arrays

N = 37


@pytest.fixture
def numbered():
  """Example i is the vector (i, -i) with label i."""
  i = np.arange(N)
  return DataSet('numbered', Arrays(np.stack([i, -i], -1).astype(np.float32), i.astype(np.int32)), (2,), N)


def take(n, *args, **kwargs):
  return list(itertools.islice(batches(*args, **kwargs), n))


def same(a, b):
  assert len(a) == len(b)
  for u, v in zip(a, b, strict=True):
    assert u.keys() == v.keys()
    for k in u:
      np.testing.assert_array_equal(u[k], v[k])


@pytest.mark.parametrize('batch', [1, 8, 37, 100])
def test_every_epoch_is_a_permutation(numbered, batch):
  """Whatever the batch (dividing, straddling, larger than the set), each stretch of N rows holds every example once."""
  rows = take(-(-5 * N // batch), numbered, batch, 3)
  labels = np.concatenate([b['cond'] for b in rows])[: 5 * N].reshape(5, N)
  np.testing.assert_array_equal(np.sort(labels, axis=1), np.tile(np.arange(N), (5, 1)))
  assert len({tuple(epoch) for epoch in labels}) == 5
  for b in rows:
    assert b['x'].dtype == np.float32 and b['cond'].dtype == np.int32
    np.testing.assert_array_equal(b['x'], np.stack([b['cond'], -b['cond']], -1))


@pytest.mark.parametrize('start', [1, 4, 5, 1000])
def test_resume_is_the_uninterrupted_run(numbered, start):
  same(take(start + 12, numbered, 8, 0)[start:], take(12, numbered, 8, 0, start=start))


def test_starts_far_away_without_replay(numbered):
  started = time.perf_counter()
  take(1, numbered, 8, 0, start=10**12)
  assert time.perf_counter() - started < 1


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_add_up(numbered, hosts):
  """Stacking the hosts' rows in order gives the single host's batch, whatever the start."""
  whole = take(9, numbered, 16, 1, start=2)
  parts = [take(9, numbered, 16, 1, start=2, shard=(h, hosts)) for h in range(hosts)]
  same(whole, [{k: np.concatenate([p[k] for p in step]) for k in step[0]} for step in zip(*parts, strict=True)])


def test_seeds_differ_and_repeat(numbered):
  a, b = take(5, numbered, 16, 0), take(5, numbered, 16, 1)
  same(a, take(5, numbered, 16, 0))
  assert all((u['cond'] != v['cond']).any() for u, v in zip(a, b, strict=True))


def test_permutations_are_uniform():
  """2000 permutations of 5: each of the 25 (place, value) counts is binomial(2000, 1/5), 400 +- 6 x 17.9."""
  counts = np.zeros((5, 5))
  for epoch in range(2000):
    counts[np.arange(5), pipeline.permutation(0, epoch, 5)] += 1
  assert np.abs(counts - 400).max() < 6 * np.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.quick('0-0', '2-2')
@pytest.mark.parametrize('workers, prefetch', [(0, 0), (0, 3), (2, 2)])
def test_large_sets_give_the_same_batches(digits, monkeypatch, workers, prefetch):
  """Read record by record, by threads or by processes, hosts and start included."""
  small = take(7, digits, 32, 5, start=44, shard=(1, 2))
  monkeypatch.setattr(pipeline, 'IN_MEMORY', 0)
  large = batches(digits, 32, 5, start=44, shard=(1, 2), workers=workers, prefetch=prefetch)
  same(small, list(itertools.islice(large, 7)))
  large.close()


def test_half_are_flipped(digits):
  """Each image is itself or its mirror image, by a coin: 512 of them within 5 deviations; nothing else changes."""
  plain, flipped = (take(4, digits, 128, 5, start=9, flip=flip) for flip in (False, True))
  heads = []
  for a, b in zip(plain, flipped, strict=True):
    itself, mirrored = ((b['x'] == x).all((1, 2, 3)) for x in (a['x'], a['x'][:, :, ::-1]))
    assert a.keys() == b.keys() and (itself | mirrored).all()
    np.testing.assert_array_equal(a['cond'], b['cond'])
    heads.append(mirrored)
  assert abs(np.sum(heads) - 256) < 5 * np.sqrt(128)


@pytest.mark.quick('0-0', '0-3')
@pytest.mark.parametrize('workers, prefetch', [(0, 0), (0, 3), (2, 2)])
def test_augmented_batches(digits, workers, prefetch):
  """Row r of batch i is the plain row moved by the draws of (seed, i, r): by threads, processes, hosts, any start."""
  stream = batches(digits, 32, 5, start=44, shard=(1, 2), workers=workers, prefetch=prefetch, augment=0.5)
  moved = list(itertools.islice(stream, 4))
  stream.close()
  for i, (a, b) in enumerate(zip(take(4, digits, 32, 5, start=44), moved, strict=True), 44):
    moves = augment.draw(augment.uniforms(5, i, 0, 32)[16:], 0.5)
    np.testing.assert_array_equal(b['x'], augment.move(a['x'][16:], moves))
    np.testing.assert_array_equal(b['augment'], augment.label(moves))
    np.testing.assert_array_equal(b['cond'], a['cond'][16:])
    assert b['x'].dtype == b['augment'].dtype == np.float32


def test_fast_enough(digits):
  """A digits batch of 128 costs about .05 ms; ten times that is refused (best of five stretches)."""
  stream, best = batches(digits, 128, 0), float('inf')
  for _ in range(5):
    started = time.perf_counter()
    for _ in range(100):
      next(stream)
    best = min(best, (time.perf_counter() - started) / 100)
  assert best < 0.5e-3


@pytest.mark.parametrize(
  'batch, seed, options, words',
  [
    (0, 0, {}, ['data.batch is 0', 'positive multiple']),
    (7, 0, dict(shard=(0, 2)), ['data.batch is 7', 'hosts, 2']),
    (8, 0, dict(shard=(2, 2)), ['(2, 2)', '0 <= host < hosts']),
    (8, -1, {}, ['seed is -1']),
    (8, 0, dict(start=-3), ['start is -3']),
    (8, 0, dict(workers=-1), ['workers is -1']),
    (8, 0, dict(augment=1.5), ['augment is 1.5', 'probability']),
    (8, 0, dict(flip=True), ['flip=True', 'images', '(2,)']),
  ],
)
def test_refuses(numbered, batch, seed, options, words):
  with pytest.raises(ValueError) as error:
    batches(numbered, batch, seed, **options)
  assert all(word in str(error.value) for word in words)


def test_flip_and_augment_toss_different_coins(digits):
  """Where both are asked for, an image is mirrored by one coin or the other: of the moves, none knows the first.

  With a vanishing probability augmentation mirrors and does nothing else; its label tells when. 2048 rows of draws of
  the other moves, and whether they are drawn, are uncorrelated with the coin of the flip to 5 / sqrt(2048).
  """
  plain, both = (take(4, digits, 512, 3, flip=flip, augment=augment) for flip, augment in ((False, 0.0), (True, 1e-12)))
  coins, told = [], []
  for a, b in zip(plain, both, strict=True):
    itself, mirrored = ((b['x'] == x).all((1, 2, 3)) for x in (a['x'], a['x'][:, :, ::-1]))
    assert (itself | mirrored).all()
    told.append(b['augment'][:, 0] == 1)
    coins.append(mirrored ^ told[-1])
  coin, n = np.concatenate(coins), 4 * 512
  assert abs(np.mean(coin) - 0.5) < 5 * 0.5 / np.sqrt(n)
  moves = [augment.draw(augment.uniforms(3, i, 0, 512), 0.5) for i in range(4)]
  np.testing.assert_array_equal(np.concatenate(told), np.concatenate([m.xflip for m in moves]))
  for columns in zip(*moves, strict=True):
    values = np.concatenate(columns).reshape(n, -1).T
    for value in (*values, *(values != 0)):
      assert abs(np.corrcoef(coin, value)[0, 1]) < 5 / np.sqrt(n)


SOME = (*range(8), 10, 31, 32, 100, 1000, 2**16, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 1, 2**63, 2**64 + 1)


def test_another_seed_or_place_is_another_stream():
  """Permutations of 64 by (seed, epoch), and uniform numbers by (seed, batch): no two pairs share one."""
  orders, numbers = {}, {}
  for seed, place in itertools.product(SOME, SOME):
    order, number = pipeline.permutation(seed, place, 64).tobytes(), augment.uniforms(seed, place, 0, 1).tobytes()
    assert order not in orders, (seed, place, orders[order])
    assert number not in numbers, (seed, place, numbers[number])
    orders[order] = numbers[number] = seed, place


class Listed(list):
  """A source that is read one by one."""


@pytest.mark.parametrize('held', [True, False])
def test_others_go_with_x(held, monkeypatch):
  """What an example holds beside x and cond is in the batch, its own row's, mirrored with it: in memory or read."""
  x = np.random.RandomState(0).uniform(-1, 1, (N, 4, 6, 1)).astype(np.float32)
  label, source = np.arange(N, dtype=np.int32), x[:, ::2, ::2]
  examples = Listed({'x': a, 'cond': c, 'source': b} for a, b, c in zip(x, source, label, strict=True))
  data = DataSet('pairs', Arrays(x, label, {'source': source}) if held else examples, x.shape[1:], N,
                 others={'source': source.shape[1:]})  # fmt: skip
  assert (data.kind, data.keys) == ('pairs', ('x', 'cond', 'source')) and data.nbytes == 4 * N * (24 + 6)
  monkeypatch.setattr(pipeline, 'IN_MEMORY', 2**30 if held else 0)
  for key, value in dict(x=x, cond=label, source=source).items():
    np.testing.assert_array_equal(data.arrays()[key], value)
  plain, flipped = (take(3, data, 16, 0, flip=flip) for flip in (False, True))
  for a, b in zip(plain, flipped, strict=True):
    np.testing.assert_array_equal(a['source'], source[a['cond']])
    turned = (b['x'] != a['x']).any((1, 2, 3))
    assert turned.any() and not turned.all()
    np.testing.assert_array_equal(b['source'][turned], a['source'][turned][:, :, ::-1])
    np.testing.assert_array_equal(b['source'][~turned], a['source'][~turned])
  with pytest.raises(ValueError, match=r'augment=0.1 would move x alone; pairs pairs it with source \(2, 3, 1\)'):
    batches(data, 16, 0, augment=0.1)


def test_an_example_whose_source_has_another_shape():
  examples = [{'x': np.zeros(2), 'source': np.zeros(3 - i)} for i in range(2)]
  with pytest.raises(ValueError, match=r'example 1: source has shape \(2,\), must be \(3,\)'):
    DataSet('mine', examples, (2,), others={'source': (3,)}).take([0, 1])
