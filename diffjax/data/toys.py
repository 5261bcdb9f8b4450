"""Two-dimensional toys, each a function (rng, n) -> points (n, 2) and labels (n,), or None where there are no parts."""

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.seeds import of_split
from diffjax.errors import InputError

__all__ = ['checkerboard', 'moons', 'pinwheel', 'ring8', 'swiss_roll']


def toy(name: str, split: str, n: int = 2**16, seed: int = 0) -> DataSet:
  """A two-dimensional toy set by name.

  n points of the toy `name`: the same for the same (name, split, n, seed), independent otherwise.
  """
  if n < 1:
    raise InputError(f'data {name!r}: n is {n}, must be at least 1')
  x, label = globals()[name](of_split(seed, name, split), n)
  cond = None if label is None else label.astype(np.int32)
  return DataSet(name, Arrays(x.astype(np.float32), cond), (2,), PARTS[name])


def ring8(rng, n):
  """Eight Gaussians of std .15 around 2 (cos, sin)(k pi / 4). Mean 0, covariance (2 + .15^2) I."""
  label = rng.randint(8, size=n)
  return 2 * polar(1, label * np.pi / 4) + 0.15 * rng.standard_normal((n, 2)), label


def moons(rng, n):
  """Two interleaved half circles of radius 1, centred and with noise of std .05.

  (cos a, sin a) - c and (1 - cos a, 1/2 - sin a) - c with a uniform on (0, pi), c = (1/2, 1/4). Mean 0,
  E x^2 = 1/2 + 1/4 + .05^2, E y^2 = 1/2 + 1/16 - 1/pi + .05^2.
  """
  label, arc = rng.randint(2, size=n), polar(1, np.pi * rng.uniform(size=n))
  x = np.where(label[:, None] == 0, arc, [1, 0.5] - arc)
  return x - [0.5, 0.25] + 0.05 * rng.standard_normal((n, 2)), label


def checkerboard(rng, n):
  """Uniform on the eight dark squares of a 4 x 4 board on [-2, 2]^2. Mean 0, variances 4/3, covariance 1/4."""
  label = rng.randint(8, size=n)
  row, half = label // 2, label % 2
  corner = np.stack([row, 2 * half + row % 2], -1) - 2
  return corner + rng.uniform(size=(n, 2)), label


def swiss_roll(rng, n):
  """A spiral with noise.

  (a cos a, a sin a) / 5 + noise of std .05, a = 3 pi (1 + 2u) / 2. E |x|^2 = (3 pi / 10)^2 13/3 + 2 (.05)^2.
  """
  a = 1.5 * np.pi * (1 + 2 * rng.uniform(size=n))
  return polar(a / 5, a) + 0.05 * rng.standard_normal((n, 2)), None


def pinwheel(rng, n):
  """Five twisted arms.

  Five twisted arms: r = (1 + .3 z, .1 z') turned by 2 pi k / 5 + exp(1 + .3 z) / 4, times 2.   arXiv:1603.06277

  Mean 0 and covariance 2 (1 + .3^2 + .1^2) I, by the five-fold symmetry.
  """
  label = rng.randint(5, size=n)
  r = rng.standard_normal((n, 2)) * [0.3, 0.1] + [1, 0]
  c, s = polar(1, 2 * np.pi * label / 5 + np.exp(r[:, 0]) / 4).T
  return 2 * np.stack([c * r[:, 0] - s * r[:, 1], s * r[:, 0] + c * r[:, 1]], -1), label


def polar(radius, angle):
  return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)


PARTS = dict(ring8=8, moons=2, checkerboard=8, swiss_roll=None, pinwheel=5)
