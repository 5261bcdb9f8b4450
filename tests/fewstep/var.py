"""A stationary VAR(2) in two dimensions, all of it in closed form: windows, their exact denoiser, the best next frame.

x_n = A x_{n-1} + B x_{n-2} + C z: two independent AR(2) of roots r e^{+-i w}, r = .9 and .7, of variance 1, turned.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact
from diffjax.methods import Source
from diffjax.prediction import Pred
from diffjax.pytree import PyTree

TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
ROOTS = ((0.9, 0.6), (0.7, 1.2))
PHI = [(2 * r * np.cos(w), -(r**2)) for r, w in ROOTS]
A, B = (TURN @ np.diag([phi[i] for phi in PHI]) @ TURN.T for i in range(2))


def correlations(lags):
  """The autocorrelation of both coordinates before they are turned, (2, lags + 1)."""
  rows = []
  for one, two in PHI:
    rho = [1.0, one / (1 - two)]
    while len(rho) <= lags:
      rho.append(one * rho[-1] + two * rho[-2])
    rows.append(rho[: lags + 1])
  return np.array(rows)


def autocovariance(lags):
  """E x_{n+h} x_n^T for h = 0 .. lags, (lags + 1, 2, 2); the identity at 0."""
  return np.einsum('ij,jh,kj->hik', TURN, correlations(lags), TURN)


def innovation():
  """C, a square root of the covariance of a frame given the two before it."""
  gamma = correlations(1)
  left = [1 - one * rho - two * (one * rho + two) for (one, two), rho in zip(PHI, gamma[:, 1], strict=True)]
  return TURN @ np.diag(np.sqrt(left)) @ TURN.T


@functools.cache
def window(frames):
  """The law of so many frames, a Gaussian of 2 * frames numbers."""
  gamma = autocovariance(frames - 1)
  whole = np.block([[gamma[i - j] if i >= j else gamma[j - i].T for j in range(frames)] for i in range(frames)])
  return exact.gaussian(np.zeros(2 * frames), whole)


class Windowed(PyTree):
  """The exact denoiser of windows (B, frames, 2)."""

  flat: exact.ExactDenoiser

  @property
  def process(self):
    return self.flat.process

  def __call__(self, x, t, cond=None, memory=None):
    pred = self.flat(x.reshape(len(x), -1), t)
    return Pred(pred.x0.reshape(x.shape), pred.eps.reshape(x.shape))


def teacher(process, frames):
  """The exact law of windows as a teacher."""
  denoise = Windowed(window(frames).denoiser(process))
  return Source('VAR', process, (frames, 2), 0, (), lambda _: denoise)


class Linear(NamedTuple):
  """The student's best answer at t_max as a network of linear frames, [x, past, there] -> x0; exact with `best`."""

  def __call__(self, params, x, t, cond=None, key=None):
    z, past, there = x[:, :2], x[:, 2:6], x[:, 6:]
    count = jnp.sum(there, 1, keepdims=True)
    two = z @ params['noise'].T + past @ params['frames'].T
    one = z @ params['second'].T + past @ params['one'].T
    out = jnp.where(count == 2, two, jnp.where(count == 1, one, z @ params['first'].T))
    return jnp.concatenate([out, past, there], -1)

  def init(self, key, x, t, cond=None):
    return best()


def best():
  """The weights with which `Linear` draws the process: from two frames, from one, from none."""
  rho = autocovariance(1)[1]
  left = np.linalg.cholesky(np.eye(2) - rho @ rho.T)
  none = np.zeros((2, 2))
  tree = dict(noise=innovation(), frames=np.hstack([B, A]), second=left, one=np.hstack([none, rho]), first=np.eye(2))
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def drift(x, early=8, late=150):
  """Of clips (n, F, 2): the log-ratio of the variances of a late and an early frame, and the relative error of the
  autocovariances of lags 1 to 4 over the frames from `late` - 20 to `late`."""
  x = np.asarray(x)
  ratio = np.log(x[:, late - 1].var() / x[:, early - 1].var())
  true = autocovariance(4)[1:]
  span = x[:, late - 20 : late]
  got = np.stack([np.einsum('nfi,nfj->ij', span[:, h:], span[:, :-h]) / span[:, h:, 0].size for h in range(1, 5)])
  return float(ratio), float(np.linalg.norm(got - true) / np.linalg.norm(true))
