"""Mel-like spectra of five vowels from a closed-form source and filter: normal given the vowel."""

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.options import check_made, number, whole
from diffjax.data.seeds import of_split
from diffjax.data.series import Moments, ar1

__all__ = ['spectra']

VOWELS = ('a', 'e', 'i', 'o', 'u')
FORMANTS = ((0.45, 0.62), (0.32, 0.78), (0.16, 0.86), (0.34, 0.48), (0.2, 0.4))  # of the range of bins, by vowel
WIDTH = 0.06
GLIDE = 0.08  # how far the second formant moves from the first frame to the last


def spectra(
  split: str, *, frames: int = 16, bins: int = 20, spread: float = 0.3, noise: float = 0.2, rho: float = 0.6,
  n: int = 2**13, seed: int = 0,
) -> DataSet:  # fmt: skip
  """Spectra (frames, bins) of a vowel, its label in 'cond': x = m_c + sum_j z_j g_cj + noise e.

  With u = bin / (bins - 1) and v = frame / (frames - 1) in [0, 1], a formant is g_cj(v, u) = sin(pi (v + 1/2) / 2)
  exp(-(u - F_cj(v))^2 / (2 .06^2)), F_cj its centre, the second one gliding by .08; the source falls with u, and
  m_c = g_c1 + g_c2 - u / 2. z_j is normal of deviation `spread`; e is in every bin an AR(1) process over the frames, of
  variance 1 and correlation `rho`. So the law given c is normal of mean m_c and covariance

      spread^2 sum_j g_cj g_cj^T + noise^2 rho^|f - f'| [b = b'],     the frames outermost,

  and the vowels have probability 1/5 each.

  Args:
    split: train or test.
    frames: of a spectrum.
    bins: of a frame.
    spread: the deviation of a formant's strength about 1.
    noise: the deviation of the noise.
    rho: its correlation from frame to frame, 0 up to 1.
    n: spectra, independent.
    seed: of the spectra.
  """
  check_made(split, n, seed)
  whole('data.frames', frames, 2)
  whole('data.bins', bins, 2)
  number('data.spread', spread, 0)
  number('data.noise', noise, 0)
  number('data.rho', rho, 0, 1)
  shapes = np.stack([_formants(k, frames, bins) for k in range(len(VOWELS))])
  means = shapes.sum(1) - np.arange(bins) / (bins - 1) / 2
  flat = shapes.reshape(*shapes.shape[:2], -1)
  still = np.kron(noise**2 * ar1(frames, rho), np.eye(bins))
  law = Moments(means, spread**2 * np.einsum('kjd,kje->kde', flat, flat) + still, normal=True)
  rng = of_split(seed, 'spectra', split)
  label, strengths = rng.randint(len(VOWELS), size=n), spread * rng.standard_normal((n, 2))
  e = np.einsum('fg,ngb->nfb', np.linalg.cholesky(ar1(frames, rho)), rng.standard_normal((n, frames, bins)))
  x = means[label] + np.einsum('nj,njfb->nfb', strengths, shapes[label]) + noise * e
  arrays = Arrays(x.astype(np.float32), label.astype(np.int32))
  return DataSet('spectra', arrays, (frames, bins), len(VOWELS), VOWELS, kind='series', law=law)


def _formants(vowel: int, frames: int, bins: int) -> np.ndarray:
  """The formants g_c1, g_c2 of a vowel, (2, frames, bins)."""
  u, v = np.arange(bins) / (bins - 1), np.arange(frames)[:, None] / (frames - 1)
  low, high = FORMANTS[vowel]
  loud = np.sin(np.pi * (v + 0.5) / 2)
  centres = low, high + GLIDE * (v - 0.5)
  return np.stack([loud * np.exp(-((u - centre) ** 2) / (2 * WIDTH**2)) for centre in centres])
