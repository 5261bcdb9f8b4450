"""Synthetic time series: seasons and correlated noise, with exact mean, covariance and forecast."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.options import among, check_made, number, whole
from diffjax.data.seeds import of_split
from diffjax.errors import InputError

__all__ = ['Moments', 'Seasons', 'ar1', 'series']


def series(
  split: str,
  *,
  length: int = 48,
  channels: int = 1,
  periods: Sequence[float] = (12.0, 24.0),
  amplitudes: Sequence[float] = (0.8, 0.4),
  noise: float = 0.3,
  rho: float = 0.8,
  phase: str = 'random',
  context: int = 0,
  lags: Sequence[int] = (),
  n: int = 2**13,
  seed: int = 0,
) -> DataSet:
  """Series (length, channels): x[l, c] = sum_k a_k sin(2 pi l / P_k + c pi / 2 + phi_k) + noise e[l, c].

  e is a stationary AR(1) process of variance 1 in each channel, e_l = rho e_l-1 + sqrt(1 - rho^2) normal. With random
  phases phi_k, uniform on the circle and independent, the mean is 0 and

      cov(x[l, c], x[m, d]) = sum_k a_k^2 / 2 cos(2 pi (l - m) / P_k + (c - d) pi / 2) + [c = d] noise^2 rho^|l - m|.

  With fixed phases, all 0, the mean is the seasons, the covariance the second term, and the law is normal.

  Args:
    split: train or test.
    length: steps of x.
    channels: of x.
    periods: P_k, in steps.
    amplitudes: a_k.
    noise: the deviation of the noise.
    rho: its correlation from step to step, 0 up to 1.
    phase: 'random' or 'fixed'.
    context: steps before x that are given as 'source' (context, channels): x is what is to be forecast.
    lags: of a series of one channel, as further channels of x itself at so many steps before, in place of a context.
    n: series, independent.
    seed: of the series.
  """
  check_made(split, n, seed)
  for field, value, low in (('length', length, 1), ('channels', channels, 1), ('context', context, 0)):
    whole(f'data.{field}', value, low)
  number('data.noise', noise, 0)
  number('data.rho', rho, 0, 1)
  among('data.phase', phase, ('random', 'fixed'))
  if len(periods) != len(amplitudes) or not all(p > 0 for p in periods):
    raise InputError(f'data.periods: got {periods} with amplitudes {amplitudes}; allowed: as many, above 0')
  if lags and (channels > 1 or context or not all(isinstance(lag, int) and lag > 0 for lag in lags)):
    raise InputError(f'data.lags: got {tuple(lags)} with {channels} channels and a context of {context}; allowed: none, '
                     'or whole numbers of at least 1 with one channel and no context')  # fmt: skip
  if lags:
    return _lagged(split, length, tuple(lags), Seasons(max(lags) + length, 1, tuple(periods), tuple(amplitudes), noise,
                   rho, phase == 'random', 0), n, seed)  # fmt: skip
  law = Seasons(context + length, channels, tuple(periods), tuple(amplitudes), noise, rho, phase == 'random', context)
  both = law.sample(of_split(seed, 'series', split), n).astype(np.float32)
  others = {'source': both[:, :context]} if context else {}
  shapes = {key: value.shape[1:] for key, value in others.items()}
  return DataSet('series', Arrays(both[:, context:], None, others), (length, channels), kind='series', others=shapes,
                 law=law)  # fmt: skip


def _lagged(split: str, length: int, lags: tuple[int, ...], whole: 'Seasons', n: int, seed: int) -> DataSet:
  """The last `length` steps of a series of one channel, and as further channels the same so many steps before."""
  places = max(lags) + np.arange(length)[:, None] - np.array((0, *lags))
  x = whole.sample(of_split(seed, 'series', split), n)[:, places, 0].astype(np.float32)
  flat = places.ravel()
  law = Moments(whole.mean[None, places, 0], whole.covariance[None, flat][:, :, flat], whole.normal)
  return DataSet('series', Arrays(x), x.shape[1:], kind='series', law=law)


@dataclasses.dataclass(frozen=True)
class Moments:
  """What is known of x by label: means (K, *shape) and covariances (K, d, d), d numbers in x; K = 1 without labels.

  Where `normal`, the law given the label is N(mean, covariance).
  """

  means: np.ndarray
  covariances: np.ndarray
  normal: bool

  def log_prob(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
    """Of x (n, *shape) given the labels (n,), in nats.

    Raises:
      InputError: the law is not normal.
    """
    if not self.normal:
      raise InputError('the density of this law is not known; allowed: fixed phases, whose law is normal')
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    labels = np.zeros(len(x), int) if cond is None else np.asarray(cond)
    total = np.empty(len(x))
    for k in np.unique(labels):
      away = flat[labels == k] - self.means[k].ravel()
      sign_log = np.linalg.slogdet(2 * np.pi * self.covariances[k])[1]
      total[labels == k] = -0.5 * (sign_log + (away * np.linalg.solve(self.covariances[k], away.T).T).sum(1))
    return total


@dataclasses.dataclass(frozen=True)
class Seasons:
  """The law of `series` over all its steps, those of the context first."""

  steps: int
  channels: int
  periods: tuple[float, ...]
  amplitudes: tuple[float, ...]
  noise: float
  rho: float
  random: bool
  context: int

  def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
    """Independent series (n, steps, channels)."""
    phase = 2 * np.pi * rng.uniform(size=(n, len(self.periods))) * self.random
    waves = np.sin(self._angles() + phase[:, None, None]) @ np.asarray(self.amplitudes, float)
    root = np.linalg.cholesky(ar1(self.steps, self.rho))
    return waves + self.noise * np.einsum('lm,nmc->nlc', root, rng.standard_normal((n, self.steps, self.channels)))

  @property
  def normal(self) -> bool:
    """Whether the law is normal: the phases are fixed."""
    return not self.random

  @property
  def mean(self) -> np.ndarray:
    """(steps, channels)."""
    still = np.sin(self._angles()) @ np.asarray(self.amplitudes, float)
    return still * (not self.random)

  @property
  def covariance(self) -> np.ndarray:
    """(steps channels, steps channels), the steps outermost."""
    total = np.kron(self.noise**2 * ar1(self.steps, self.rho), np.eye(self.channels))
    if self.random:
      angles = self._angles().reshape(-1, len(self.periods))
      turned = np.cos(angles[:, None] - angles[None])
      total = total + turned @ (np.asarray(self.amplitudes, float) ** 2 / 2)
    return total

  @property
  def means(self) -> np.ndarray:
    """(1, length, channels) of x, the steps after the context."""
    return self.mean[None, self.context :]

  @property
  def covariances(self) -> np.ndarray:
    """(1, d, d) of x."""
    first = self.context * self.channels
    return self.covariance[None, first:, first:]

  def log_prob(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
    """Of x (n, length, channels), see `Moments.log_prob`."""
    return Moments(self.means, self.covariances, self.normal).log_prob(x, cond)

  def forecast(self, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best linear forecast of x (n, length, channels) from the source, and the covariance (d, d) of its error.

    m_x + C_xs C_ss^-1 (s - m_s) and C_xx - C_xs C_ss^-1 C_sx: the conditional law itself where it is normal.
    """
    first, c = self.context * self.channels, self.covariance
    gain = np.linalg.solve(c[:first, :first], c[:first, first:]).T
    away = np.asarray(source, np.float64).reshape(len(source), -1) - self.mean.ravel()[:first]
    mean = self.mean.ravel()[first:] + away @ gain.T
    return mean.reshape(len(mean), -1, self.channels), c[first:, first:] - gain @ c[:first, first:]

  def _angles(self) -> np.ndarray:
    """2 pi l / P_k + c pi / 2, (steps, channels, K)."""
    step, channel = np.arange(self.steps)[:, None, None], np.arange(self.channels)[:, None]
    return 2 * np.pi * step / np.asarray(self.periods, float) + channel * np.pi / 2


def ar1(steps: int, rho: float) -> np.ndarray:
  """The correlations (steps, steps) of a stationary AR(1) process: rho^|l - m|."""
  place = np.arange(steps)
  return np.float64(rho) ** np.abs(place[:, None] - place)
