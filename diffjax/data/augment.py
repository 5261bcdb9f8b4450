"""Flips, and EDM's non-leaky augmentation: what is done to an image is drawn, done, and told to the network.

An image goes through flips and then through the affine map (pixels from the centre, x to the right, y down)

    q_out = T A R S q_in      S = s 1,  R = Rot(-angle),  A = Rot(-axis) diag(a, 1/a) Rot(axis),  T = + (dx, dy)

s = 2^(.2 scale), a = 2^(.2 stretch), (dx, dy) = (width, height) * shift / 8. All randomness of row r of batch i is a
function of (seed, i, r) alone, so hosts, workers, threads and a resume all see the same.   arXiv:2206.00364 app. F.2
"""

from typing import NamedTuple

import numpy as np

from diffjax.data.seeds import stream

__all__ = ['FEATURES', 'Moves', 'draw', 'label', 'move', 'uniforms']

FEATURES = 9  # numbers of a label
STD = 0.2  # of log2 of both scalings
REACH = 0.125  # standard deviation of a translation, in sides of the image
DRAWS = 15  # uniform numbers a row


class Moves(NamedTuple):
  """What is done to each of B images; zeros everywhere for nothing.

  Attributes:
    xflip, yflip: (B,) bool, left-right and top-bottom.
    scale, stretch: (B,) standard normal where on.
    angle, axis: (B,) radians in -pi..pi; a positive angle turns what is seen counter-clockwise, as np.rot90 does.
    shift: (B, 2) standard normal where on; to the right and down.
  """

  xflip: np.ndarray
  yflip: np.ndarray
  scale: np.ndarray
  angle: np.ndarray
  stretch: np.ndarray
  axis: np.ndarray
  shift: np.ndarray


def uniforms(seed: int, index: int, start: int, stop: int) -> np.ndarray:
  """The random numbers that decide what is done to each row of a batch.

  (stop - start, 15) uniform numbers on [0, 1): those of the rows start..stop-1 of global batch `index`.
  """
  rng = stream(seed, index, 1)  # not the stream of the permutations
  return rng.random_sample((stop, DRAWS))[start:]  # row by row, so that no row knows the size of the batch


def draw(u: np.ndarray, p: float) -> Moves:
  """Moves from uniform numbers u (B, >= 14): x-flip with probability 1/2, each of the others is tried with p.

  A y-flip that is tried happens with probability 1/2, a stretch is along a random axis in half of the cases and along
  x or y otherwise.
  """
  from scipy.special import ndtri

  normal = ndtri(np.maximum(u, 2.0**-53))
  turn = np.pi * (2 * u - 1)
  on = u[:, 9:13] < p  # scale, rotation, stretch, translation
  return Moves(
    xflip=u[:, 0] < 0.5,
    yflip=(u[:, 1] < 0.5) & (u[:, 2] < p),
    scale=np.where(on[:, 0], normal[:, 3], 0),
    angle=np.where(on[:, 1], turn[:, 4], 0),
    stretch=np.where(on[:, 2], normal[:, 5], 0),
    axis=np.where(on[:, 2] & (u[:, 13] < 0.5), turn[:, 6], 0),
    shift=np.where(on[:, 3, None], normal[:, 7:9], 0),
  )


def label(moves: Moves) -> np.ndarray:
  """What the network is told of an augmentation.

  (B, 9) float32: x-flip, y-flip, scale, cos angle - 1, sin angle, stretch (cos axis, sin axis), shift.

  Zero exactly where nothing was done; zeros are what sampling tells.
  """
  columns = [
    moves.xflip,
    moves.yflip,
    moves.scale,
    np.cos(moves.angle) - 1,
    np.sin(moves.angle),
    moves.stretch * np.cos(moves.axis),
    moves.stretch * np.sin(moves.axis),
    *moves.shift.T,
  ]
  return np.stack(columns, -1).astype(np.float32)


def move(x: np.ndarray, moves: Moves) -> np.ndarray:
  """The images x (B, H, W, C) moved; float32. What an image takes from beyond its edge is mirrored.

  Flips are exact; the affine map reads the interpolating cubic spline once a pixel. (EDM resamples at twice the
  resolution between wavelet filters: there what shrinks is low-pass filtered, and far beyond the edge it is black.)
  Values may overshoot those of the image, as in EDM.
  """
  from scipy import ndimage

  x = np.array(x, np.float32)
  x[moves.xflip] = x[moves.xflip, :, ::-1]
  x[moves.yflip] = x[moves.yflip, ::-1]
  inverse, back = _inverse(moves, x.shape[1:3])
  warped = np.flatnonzero((inverse != np.eye(2)).any((1, 2)) | back.any(1))
  spline: np.ndarray = x[warped]
  for axis in (1, 2):
    spline = ndimage.spline_filter1d(spline, 3, axis, np.float64, 'mirror')
  centre = (np.array(x.shape[1:3]) - 1) / 2
  for coefficients, row in zip(spline, warped, strict=True):
    offset = centre - inverse[row] @ (centre + back[row])
    for c in range(x.shape[-1]):
      x[row, ..., c] = ndimage.affine_transform(
        coefficients[..., c], inverse[row], offset, output=np.float32, order=3, mode='mirror', prefilter=False
      )
  return x


def _inverse(moves: Moves, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
  """q_in = inverse (q_out - back) in (row, column) order: (B, 2, 2) and (B, 2)."""
  grow, a = 2.0 ** (STD * moves.scale), 2.0 ** (STD * moves.stretch)
  # the stretch of the docstring, multiplied out, so that no stretch is the identity to the last bit
  c2, cs, s2 = np.cos(moves.axis) ** 2, np.cos(moves.axis) * np.sin(moves.axis), np.sin(moves.axis) ** 2
  xx, xy, yy = a + (1 / a - a) * c2, (a - 1 / a) * cs, a + (1 / a - a) * s2
  cos, sin = np.cos(moves.angle) / grow, np.sin(moves.angle) / grow
  rows = [sin * xy + cos * yy, sin * xx + cos * xy], [cos * xy - sin * yy, cos * xx - sin * xy]
  return np.moveaxis(np.array(rows), -1, 0), REACH * np.array(shape) * moves.shift[:, ::-1]
