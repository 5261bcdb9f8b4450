"""Mean and deviation of a data set, of any size, a chunk at a time."""

from collections.abc import Iterable

import numpy as np

from diffjax.errors import InputError
from diffjax.statistics.types import Spread

__all__ = ['spread']


def spread(chunks: Iterable[np.ndarray]) -> Spread:
  """The mean m of each element and the one deviation s about it, s^2 = E |x0 - m|^2 / d; in float64.

  Args:
    chunks: arrays (b, ...) of examples, at least one example in all.

  Raises:
    InputError: there is no example.
  """
  count, about, first, second = 0, 0.0, 0.0, 0.0
  for chunk in chunks:
    x = np.asarray(chunk, np.float64)
    about = x.mean(0) if count == 0 else about  # sums about a point near the mean lose no digits
    x = x - about
    count, first, second = count + len(x), first + x.sum(0), second + np.square(x).sum(0)
  if not count:
    raise InputError('chunks: got no example; allowed: at least one')
  variance = np.mean(second / count - np.square(first / count))
  return Spread(about + first / count, np.sqrt(np.maximum(variance, 0.0)))
