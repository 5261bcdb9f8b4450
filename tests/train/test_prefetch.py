"""Batches made ahead are the same batches, errors come in their turn, and none waits to be asked for."""

import itertools
import threading

import pytest

from diffjax.train.prefetch import Prefetch


def double(x):
  return 2 * x


@pytest.mark.parametrize('n', [0, 1, 3])
def test_in_order_and_so_many_ahead(n):
  made = []

  def source():
    for i in itertools.count():
      made.append(i)
      yield i

  stream = Prefetch(source(), double, n)
  assert [next(stream) for _ in range(10)] == [2 * i for i in range(10)]
  stream.close()
  assert 10 <= len(made) <= 10 + n
  assert not any(thread.name.startswith('prefetch') for thread in threading.enumerate())


@pytest.mark.parametrize('n', [0, 2])
@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, StopIteration])
def test_an_error_comes_in_its_turn(n, error):
  """Five batches are there, the sixth is not, whenever the stream found out; the end of a finite stream too."""

  def source():
    yield from range(5)
    if error is not StopIteration:
      raise error('the sixth')

  stream = Prefetch(source(), double, n)
  assert [next(stream) for _ in range(5)] == [0, 2, 4, 6, 8]
  with pytest.raises(error):
    next(stream)
  stream.close()


def test_refuses():
  with pytest.raises(ValueError, match='prefetch: got -1; allowed'):
    Prefetch(iter([]), double, -1)


def test_works_while_nobody_asks():
  """With batch i handed out, batches i + 1 .. i + 3 get made although the consumer is busy and asks for nothing."""
  made = threading.Semaphore(0)

  def source():
    for i in itertools.count():
      made.release()
      yield i

  stream = Prefetch(source(), double, 3)
  for i in range(5):
    assert next(stream) == 2 * i
    for _ in range(4 if i == 0 else 1):
      assert made.acquire(timeout=60)
  assert not made.acquire(timeout=0.2)  # and no more than these
  stream.close()
