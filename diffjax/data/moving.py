"""Clips of a digit that moves through a small frame: its path is known exactly."""

import dataclasses
from typing import NamedTuple

import numpy as np

from diffjax.data.dataset import DataSet
from diffjax.data.options import among, check_made, whole
from diffjax.data.seeds import stream

__all__ = ['moving_digits', 'places']

DIGIT = 8


def moving_digits(
  split: str,
  data_dir: str | None = None,
  *,
  frames: int = 8,
  size: int = 16,
  speed: int = 2,
  edge: str = 'bounce',
  n: int = 2**11,
  seed: int = 0,
) -> DataSet:
  """Clips (frames, size, size, 1) in [-1, 1] of a digit of the split on a ground of -1, its label in 'cond'.

  The upper left corner of the digit (8 x 8) is at p_f = `places`(start, velocity)[f], whole pixels. Digit, start (where
  there is room) and velocity in {-speed, ..., speed}^2 without (0, 0) are uniform and independent. Clip i is a function
  of (seed, split, i). Two frames determine a clip, save where it bounces between them.

  Args:
    split: train or test, of digits.
    data_dir: where the digits lie.
    frames: of a clip.
    size: of a frame: at least 9 for 'bounce', 8 for 'wrap'.
    speed: the most pixels a frame in either direction.
    edge: 'bounce' back from the frame's edges, or 'wrap' around them.
    n: clips.
    seed: of the clips.
  """
  from diffjax.data.digits import digits

  check_made(split, n, seed)
  among('data.edge', edge, ('bounce', 'wrap'))
  whole('data.frames', frames, 1)
  whole('data.size', size, DIGIT + (edge == 'bounce'))
  whole('data.speed', speed, 1)
  known = digits(split, data_dir).arrays()
  clips = Clips(known['x'], known['cond'], split, frames, size, speed, edge, n, seed)
  return DataSet('moving_digits', clips, (frames, size, size, 1), 10, kind='series')


def places(start: np.ndarray, velocity: np.ndarray, frames: int, size: int, edge: str) -> np.ndarray:
  """The corners (frames, 2) of a digit: p_f = fold(start + f velocity).

  'bounce': fold(z) = R - |z mod 2R - R| with R = size - 8, which runs between 0 and R and turns back at both;
  'wrap': fold(z) = z mod size.
  """
  z = np.asarray(start) + np.arange(frames)[:, None] * np.asarray(velocity)
  room = size - DIGIT
  return z % size if edge == 'wrap' else room - np.abs(z % (2 * room) - room)


class Motion(NamedTuple):
  """What a clip is made of: the digit's place in its split, the corner at frame 0, pixels a frame (down, right)."""

  digit: int
  start: np.ndarray
  velocity: np.ndarray


@dataclasses.dataclass(frozen=True)
class Clips:
  """Clips made when they are asked for."""

  digits: np.ndarray
  labels: np.ndarray
  split: str
  frames: int
  size: int
  speed: int
  edge: str
  n: int
  seed: int

  def __len__(self) -> int:
    return self.n

  def motion(self, index: int) -> Motion:
    """How clip `index` moves."""
    rng = stream(self.seed, index, *self.split.encode())
    starts = self.size if self.edge == 'wrap' else self.size - DIGIT + 1
    side = 2 * self.speed + 1
    velocity = rng.randint(side**2 - 1)
    velocity += velocity >= side**2 // 2  # the middle one stands still
    start, velocity = rng.randint(starts, size=2), np.array(divmod(velocity, side)) - self.speed
    return Motion(rng.randint(len(self.digits)), start, velocity)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    digit, start, velocity = self.motion(index)
    x = np.full((self.frames, self.size, self.size, 1), -1, np.float32)
    corners = places(start, velocity, self.frames, self.size, self.edge)
    rows, columns = np.moveaxis((corners[..., None] + np.arange(DIGIT)) % self.size, 1, 0)
    x[np.arange(self.frames)[:, None, None], rows[:, :, None], columns[:, None]] = self.digits[digit]
    return {'x': x, 'cond': self.labels[digit]}
