"""EDM's augmentation against closed forms: what is seen moves as the formulas say, and the label says what was done."""

import numpy as np
import pytest

from diffjax.data.augment import FEATURES, Moves, draw, label, move, uniforms

RNG = np.random.RandomState(0)


def moves(n=3, **given):
  """Nothing done to n images but what is given."""
  flips = dict.fromkeys(('xflip', 'yflip'), np.zeros(n, bool))
  none = flips | dict.fromkeys(('scale', 'angle', 'stretch', 'axis'), np.zeros(n)) | dict(shift=np.zeros((n, 2)))
  return Moves(**{k: np.asarray(v) for k, v in (none | given).items()})


def images(n=3, h=8, w=8, c=3):
  return RNG.uniform(-1, 1, (n, h, w, c)).astype(np.float32)


def test_nothing_is_nothing():
  """To the last bit, even about an axis that nothing is stretched along."""
  x = images()
  np.testing.assert_array_equal(move(x, moves()), x)
  np.testing.assert_array_equal(move(x, moves(axis=RNG.uniform(-3, 3, 3))), x)
  np.testing.assert_array_equal(label(moves()), np.zeros((3, FEATURES)))


def test_flips():
  x, on = images(h=6), np.array([True, False, True])
  np.testing.assert_array_equal(move(x, moves(xflip=on)), np.where(on[:, None, None, None], np.flip(x, 2), x))
  np.testing.assert_array_equal(move(x, moves(yflip=on)), np.where(on[:, None, None, None], np.flip(x, 1), x))


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_quarter_turns(turns):
  """Counter-clockwise, as np.rot90; the spline passes through the pixels, to the rounding of float32."""
  x = images()
  out = move(x, moves(angle=np.full(3, turns * np.pi / 2)))
  np.testing.assert_allclose(out, np.rot90(x, turns, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize('dx, dy', [(3, 0), (0, -2), (-5, 4)])
def test_whole_pixels(dx, dy):
  """A move by whole pixels is a shift of the mirrored image; the unit is an eighth of the side."""
  x = images(h=8, w=16)
  out = move(x, moves(shift=np.array([[dx / 2, dy]] * 3, float)))
  padded = np.pad(x, ((0, 0), (7, 7), (7, 7), (0, 0)), mode='reflect')
  np.testing.assert_allclose(out, padded[:, 7 - dy : 15 - dy, 7 - dx : 23 - dx], atol=1e-5)


def cosines(rows, columns):
  """cos(2 pi r / 32) cos(3 pi c / 32): mirrored about both edges of a 33 x 33 image it is itself, everywhere."""
  return np.cos(2 * np.pi * rows / 32) * np.cos(3 * np.pi * columns / 32)


GRID = np.arange(33.0)
WAVE = cosines(GRID[:, None], GRID)[None, :, :, None].repeat(2, -1)
# a cubic spline errs by 5/384 h^4 max|f''''| along an axis to leading order, here f'''' <= (3 pi / 32)^4 for an axis;
# twice that for both axes and a half for the higher orders of a tensor product
SPLINE = 1.5 * 2 * 5 / 384 * (3 * np.pi / 32) ** 4


def test_any_moves_are_the_formula():
  """Random moves of a wave that is its own mirror image: the wave at the inverse of T A R S, by 2 x 2 matrices."""
  n = 12
  m = moves(n, scale=RNG.randn(n), angle=RNG.uniform(-3, 3, n), stretch=RNG.randn(n), axis=RNG.uniform(-3, 3, n),
            shift=RNG.randn(n, 2), xflip=RNG.rand(n) < 0.5)  # fmt: skip
  out = move(np.repeat(WAVE, n, 0), m)

  def turn(a):
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

  for i in range(n):
    a = 2 ** (0.2 * m.stretch[i])
    stretch = turn(-m.axis[i]) @ np.diag([a, 1 / a]) @ turn(m.axis[i])
    forward = stretch @ turn(-m.angle[i]) * 2 ** (0.2 * m.scale[i])  # (x, y)
    q = np.stack(np.meshgrid(GRID - 16, GRID - 16)) - 33 / 8 * m.shift[i][:, None, None]
    x, y = np.tensordot(np.linalg.inv(forward), q, 1)
    want = cosines(y + 16, (-x if m.xflip[i] else x) + 16)
    np.testing.assert_allclose(out[i, ..., 0], want, atol=SPLINE)
    np.testing.assert_array_equal(out[i, ..., 1], out[i, ..., 0])


def test_shrunk_and_grown_back():
  """Scaling by s = 2^-.4 and then by 1/s: the second spline sees waves shorter by s, hence errs by s^-4 as much."""
  there = move(WAVE, moves(1, scale=np.array([-2.0])))
  back = move(there, moves(1, scale=np.array([2.0])))
  np.testing.assert_allclose(back, WAVE, atol=SPLINE * (1 + 2 ** (0.4 * 4)))
  assert np.abs(there - WAVE).max() > 0.3


def test_label_is_zero_exactly_where_nothing_was_done():
  x = images(400, 4, 4, 1)
  m = draw(uniforms(0, 3, 0, 400), 0.12)
  same = (move(x, m) == x).all((1, 2, 3))
  np.testing.assert_array_equal(same, (label(m) == 0).all(1))
  assert 0.2 < same.mean() < 0.4  # (1/2) (.94) (.88)^4 = .28


def test_label_says_what_was_done():
  """(0, 1, w, cos - 1, sin, w' cos, w' sin, dx, dy), by hand."""
  m = moves(1, yflip=[True], scale=[2.0], angle=[np.pi / 2], stretch=[-1.0], axis=[np.pi], shift=[[0.5, -3.0]])
  np.testing.assert_allclose(label(m), [[0, 1, 2, -1, 1, 1, 0, 0.5, -3]], atol=1e-7)


def test_frequencies():
  """Counts over 2 x 10^4 rows lie within 5 deviations of a binomial; gates do not depend on each other."""
  n, p = 20_000, 0.12
  m = draw(uniforms(1, 0, 0, n), p)
  on = dict(scale=m.scale != 0, angle=m.angle != 0, stretch=m.stretch != 0, shift=m.shift[:, 0] != 0)
  cases = [(m.xflip, 0.5), (m.yflip, p / 2), (m.axis != 0, p / 2), *((v, p) for v in on.values())]
  cases += [(on['scale'] & on['angle'], p**2), (on['stretch'] & on['shift'], p**2), (m.xflip & on['scale'], p / 2)]
  for hits, rate in cases:
    assert abs(hits.sum() - n * rate) < 5 * np.sqrt(n * rate * (1 - rate))
  np.testing.assert_array_equal(on['shift'], m.shift[:, 1] != 0)
  assert not (m.axis[~on['stretch']]).any()


def test_laws():
  """Standard normals and uniform angles where on: mean and second moment within 5 standard errors."""
  m = draw(uniforms(2, 0, 0, 20_000), 1.0)
  for normal in (m.scale, m.stretch, *m.shift.T):
    assert abs(normal.mean()) < 5 / np.sqrt(20_000) and abs((normal**2).mean() - 1) < 5 * np.sqrt(2 / 20_000)
  for angle in (m.angle, m.axis[m.axis != 0]):
    error = np.pi**2 * np.sqrt(4 / 45 / len(angle))  # var of a^2 is (1/5 - 1/9) pi^4
    assert abs((angle**2).mean() - np.pi**2 / 3) < 5 * error and np.abs(angle).max() < np.pi
  assert abs(np.corrcoef(np.stack([m.scale, m.stretch, *m.shift.T, m.angle]))[np.triu_indices(5, 1)]).max() < 0.05


def test_rows_know_neither_batch_nor_host():
  """Row r of batch i is the same in a batch of any size and from any host, and another for another (seed, i, r)."""
  u = uniforms(5, 7, 0, 64)
  np.testing.assert_array_equal(uniforms(5, 7, 16, 24), u[16:24])
  others = np.concatenate([u, uniforms(5, 8, 0, 64), uniforms(6, 7, 0, 64)])
  assert len(np.unique(others)) == others.size
