"""Where the wall time of a run goes, by the host's clock."""

import contextlib
import time
from collections.abc import Iterator

__all__ = ['Clock']


class Clock:
  """Seconds by what they went to, and the rate of steps.

  seconds:
    compile: from the start of the run to the end of its first step.
    train:   from there to the last step's line in the log, without `save`.
    wait:    of that, for a batch to be there and on the devices; hidden where devices still have steps to do.
    log:     of that, to write what was logged.
    save:    in checkpoints, as far as training stood still.
  """

  def __init__(self, began: float):
    self.seconds = dict(compile=0.0, train=0.0, wait=0.0, log=0.0, save=0.0)
    self.began = began
    self.since: float | None = None
    self.steps = 0

  @contextlib.contextmanager
  def __call__(self, part: str) -> Iterator[None]:
    """Adds what happens inside to a part, once the first step is over."""
    began = time.perf_counter()
    yield
    if self.since is not None:
      self.seconds[part] += time.perf_counter() - max(began, self.since)
      self._read()

  def step(self) -> None:
    """A step has ended; the first one compiled."""
    if self.since is None:
      self.since = time.perf_counter()
      self.seconds['compile'] = self.since - self.began
    else:
      self.steps += 1
      self._read()

  def _read(self) -> None:
    assert self.since is not None
    self.seconds['train'] = time.perf_counter() - self.since - self.seconds['save']

  def rate(self) -> float:
    """Steps per second since the first step ended, without the time that saving took."""
    return self.steps / self.seconds['train'] if self.seconds['train'] > 0 else 0.0
