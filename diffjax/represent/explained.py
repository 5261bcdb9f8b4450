"""Which score explains a network: that of one Gaussian, of a few, of all, or of the training examples themselves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.errors import InputError
from diffjax.exact import gaussian, mixture
from diffjax.prediction import Denoise, Pred
from diffjax.pytree import PyTree

__all__ = ['Explained', 'candidates', 'explained']


class Explained(NamedTuple):
  """The share of a network that each candidate explains, by name, the name of the best, and its lead over the next."""

  share: dict[str, float]
  best: str
  margin: float


def explained(denoise: Denoise, others: Mapping[str, Any], x: Array, t: Any, mean: Any = None) -> Explained:
  """The share of a denoiser's variance that each of the other laws explains, at held-out points x of one time.

      1 - E |D - D_m|^2 / E |D - mean|^2

  of the denoisers D: of the scores themselves every share is near 1 at high noise, where -x / sigma^2 is most of each.

  arXiv:2412.09726

  Args:
    denoise: the network.
    others: laws by name, with `predict` as that of `exact.Mixture`, such as `candidates`.
    x: (B, ...) noisy points.
    t: their time, a number.
    mean: of the data, like one example; that of the predictions where None.

  Raises:
    InputError: fewer than two laws.
  """
  if len(others) < 2:
    raise InputError(f'others: got {len(others)} laws; allowed: at least 2')
  alpha, sigma = denoise.process.schedule(jnp.asarray(t))
  own = denoise(x, t).x0
  center = jnp.mean(own, 0) if mean is None else jnp.asarray(mean)
  total, flat = jnp.mean((own - center) ** 2), x.reshape(len(x), -1)
  share = {}
  for name, law in others.items():
    theirs = _predicted(law, flat, alpha, sigma).reshape(x.shape)
    share[name] = float(1 - jnp.mean((own - theirs) ** 2) / total)
  ranked = sorted(share, key=lambda name: -share[name])
  return Explained(share, ranked[0], share[ranked[0]] - share[ranked[1]])


@jax.jit
def _predicted(law: Any, x: Array, alpha: Array, sigma: Array) -> Array:
  return law.predict(x, alpha, sigma).x0


def candidates(data: Any, *, rank: int | None = None, parts: int = 0, seed: int = 0) -> dict[str, Any]:
  """The laws that are fitted to training data (n, ...): isotropic, Gaussian, of few axes, of few parts, and the data.

  Args:
    data: the training examples.
    rank: axes of 'rank'; without it where None.
    parts: components of 'mixture', by scikit-learn's expectation-maximisation; without it where 0.
    seed: of its start.
  """
  flat = np.asarray(data, np.float64).reshape(len(data), -1)
  mean, cov = flat.mean(0), np.atleast_2d(np.cov(flat.T, bias=True))
  d = len(mean)
  laws: dict[str, Any] = {'isotropic': gaussian(mean, np.full(d, np.trace(cov) / d)), 'Gaussian': gaussian(mean, cov)}
  if rank is not None:
    var, axes = np.linalg.eigh(cov)
    laws['rank'] = gaussian(mean, (axes[:, -rank:] * var[-rank:]) @ axes[:, -rank:].T)
  if parts:
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(parts, random_state=seed, reg_covar=1e-4, n_init=3).fit(flat)
    laws['mixture'] = mixture(found.weights_, found.means_, found.covariances_)
  laws['data'] = points(flat)
  return laws


def points(data: np.ndarray) -> 'Points':
  """The law of n examples (n, d) alone, without a basis of each."""
  return Points(jnp.asarray(data, float))


class Points(PyTree):
  """Examples as a law, of which the denoiser is their mean by their distances."""

  data: Array

  def predict(self, x: Array, alpha: Any, sigma: Any) -> Pred:
    """The exact pair at x (B, d), at one level above no noise."""
    cross = jnp.matmul(x, self.data.T, precision='highest')
    square = jnp.sum(x**2, 1)[:, None] + alpha**2 * jnp.sum(self.data**2, 1) - 2 * alpha * cross
    x0 = jnp.matmul(jax.nn.softmax(-square / (2 * sigma**2), axis=1), self.data, precision='highest')
    return Pred(x0, (x - alpha * x0) / sigma)
