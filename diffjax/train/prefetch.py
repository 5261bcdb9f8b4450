"""Batches on the device before a step asks for them."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from diffjax.errors import InputError

__all__ = ['Prefetch']


class Prefetch:
  """Makes batches ahead of the loop by one thread.

  place(batch) of every batch of a stream, in order, `n` of them made ahead by one thread; 0: made when asked for.

  The same batches for every n. An error of the stream is raised in its turn, when its batch is asked for.
  """

  def __init__(self, stream: Iterator[Any], place: Callable[[Any], Any], n: int):
    if n < 0:
      raise InputError(f'prefetch: got {n}; allowed: a whole number of at least 0')
    self.stream, self.place = stream, place
    self.thread = ThreadPoolExecutor(1, 'prefetch')
    self.ahead = deque(self.thread.submit(self._make) for _ in range(n))

  def __iter__(self) -> 'Prefetch':
    return self

  def __next__(self) -> Any:
    if not self.ahead:
      return self._make()
    self.ahead.append(self.thread.submit(self._make))
    return self.ahead.popleft().result()

  def _make(self) -> Any:
    return self.place(next(self.stream))

  def close(self) -> None:
    """Ends the thread; what it was making is thrown away."""
    self.thread.shutdown(cancel_futures=True)
