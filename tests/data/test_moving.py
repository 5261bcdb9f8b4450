"""A clip is its digit at the places of its motion, by a walk that turns back at the edges; starts and speeds even."""

import numpy as np
import pytest

from diffjax.data import load
from diffjax.data.moving import places


def walk(start, velocity, frames, room):
  """One coordinate a pixel at a time, turning where the next pixel is outside 0..room."""
  place, step, path = start, np.sign(velocity), [start]
  for _ in range(frames - 1):
    for _ in range(abs(velocity)):
      if not 0 <= place + step <= room:
        step = -step
      place += step
    path.append(place)
  return path


@pytest.mark.parametrize('size', [9, 11, 16])
@pytest.mark.parametrize('velocity', [(1, -2), (-3, 0), (20, 5)])
def test_places_are_those_of_a_walk(size, velocity):
  for start in np.ndindex(size - 7, size - 7):
    expected = np.transpose([walk(a, v, 9, size - 8) for a, v in zip(start, velocity, strict=True)])
    np.testing.assert_array_equal(places(start, velocity, 9, size, 'bounce'), expected)


def test_clips_show_their_motion(home, digits):
  """Cut at the stated place each frame is the digit, and all else is the ground."""
  data = load('moving_digits', 'train', home, n=40, frames=6, size=12, speed=3)
  assert (data.kind, data.shape, data.classes) == ('series', (6, 12, 12, 1), 10)
  clips, known = data.arrays(), digits.arrays()
  for i in range(40):
    digit, start, velocity = data.source.motion(i)
    assert clips['cond'][i] == known['cond'][digit]
    for frame, (r, c) in zip(clips['x'][i], places(start, velocity, 6, 12, 'bounce'), strict=True):
      np.testing.assert_array_equal(frame[r : r + 8, c : c + 8], known['x'][digit])
      assert (frame == -1).sum() == (known['x'][digit] == -1).sum() + 144 - 64


@pytest.mark.slow
def test_wrapped_clips_are_rolled(home, digits):
  """In a frame of the digit's size each frame is the first one rolled by the velocity: two frames tell them all."""
  data = load('moving_digits', 'train', home, n=20, size=8, edge='wrap', speed=1)
  for i, clip in enumerate(data.arrays()['x']):
    digit, start, velocity = data.source.motion(i)
    np.testing.assert_array_equal(clip[0], np.roll(digits.arrays()['x'][digit], start, (0, 1)))
    for f in range(8):
      np.testing.assert_array_equal(clip[f], np.roll(clip[0], f * velocity, (0, 1)))


def test_motions_are_even_and_those_of_their_index(home):
  """24 velocities and 81 starts of 2000 clips within six deviations; of (seed, split, index) alone."""
  source = load('moving_digits', 'train', home, n=2000).source
  found = [source.motion(i) for i in range(2000)]
  for values, kinds in (([tuple(m.velocity) for m in found], 24), ([tuple(m.start) for m in found], 81)):
    counts = np.unique(np.array(values), axis=0, return_counts=True)[1]
    assert len(counts) == kinds and np.abs(counts - 2000 / kinds).max() < 6 * np.sqrt(2000 / kinds)
  assert not any((m.velocity == 0).all() for m in found)
  few, other = (load('moving_digits', 'train', home, n=7, seed=s).source for s in (0, 1))
  same = lambda a, b: all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))  # noqa: E731
  assert same(few.motion(6), found[6]) and not same(other.motion(6), found[6])
  assert not same(load('moving_digits', 'test', home, n=7).source.motion(6)[1:], found[6][1:])
