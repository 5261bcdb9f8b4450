"""Sequences of tokens: n-grams against held-out sequences, and the likelihood under the exact law."""

from __future__ import annotations

import numpy as np

from diffjax.metrics.result import Metric
from diffjax.metrics.sets import Given, against_held_out, compared, share

__all__ = ['likelihood', 'ngrams', 'total_variation']

GRAMS = ('unigram_tv', 'bigram_tv', 'trigram_tv')
LISTED = 2**12  # sequences up to which frequencies are held against all their probabilities


def ngrams(given: Given) -> dict[str, Metric]:
  """Total variation of the frequencies of n-grams, n = 1, 2, 3, at all places together, and of tokens place by place.

  `place_tv` is the mean over places of the total variation of the tokens there; `law_tv`, where the law can list its
  sequences, that of whole sequences from their exact probabilities (no held-out data enter).
  """
  length = np.shape(given.samples)[1]
  names = (*GRAMS[:length], 'place_tv')
  every, p = given.law.every() if getattr(given.law, 'count', LISTED + 1) <= LISTED else ((), np.zeros(0))
  if len(every):
    names = (*names, 'law_tv')

  def statistic(reference, samples, labels):
    grams = [total_variation(_grams(reference, n), _grams(samples, n)) for n in range(1, min(length, 3) + 1)]
    places = np.mean([total_variation(a, b) for a, b in zip(reference.T, samples.T, strict=True)])
    whole = [_from_law(samples, np.asarray(every), p)] if len(every) else []
    return np.array([*grams, places, *whole])

  return compared(given, names, statistic, 'tokens', _integers)


def likelihood(given: Given) -> dict[str, Metric]:
  """Nats a number (a token, a value) of samples under the exact law, and the share that the law never writes.

  log_likelihood: mean of log p(x | cond) / d over samples with p > 0; `log_likelihood_exact` is what it is for the law
  itself, where it tells its entropy. Only a law of known density has these.
  """
  by_label = given.labels is None and len(getattr(given.law, 'means', ())) > 1  # and no labels to ask it by
  if not hasattr(given.law, 'log_prob') or not getattr(given.law, 'normal', True) or by_label:
    return {}
  found, known = (
    given.law.log_prob(x, *_labels(given)) / x[0].size for x in (np.asarray(given.samples), given.held['x'])
  )
  result = {
    'log_likelihood': against_held_out(found[np.isfinite(found)], known[np.isfinite(known)], 'law'),
    'off_support': share(np.isinf(found), np.isinf(known), 'law'),
  }
  if hasattr(given.law, 'entropy'):
    exact = -given.law.entropy / np.asarray(given.samples)[0].size
    result['log_likelihood_exact'] = Metric(exact, None, None, len(known), len(found), 'law')
  return result


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
  """Half the sum of |p - q| of the frequencies of the values in a and in b: 0 for equal ones, 1 for disjoint ones."""
  values, places = np.unique(np.concatenate([a, b]), return_inverse=True)
  p, q = (np.bincount(part, minlength=len(values)) / len(part) for part in np.split(np.ravel(places), [len(a)]))
  return float(np.abs(p - q).sum() / 2)


def _labels(given: Given) -> tuple:
  return () if given.labels is None else (given.labels,)


def _integers(x: np.ndarray) -> np.ndarray:
  return np.asarray(x).astype(np.int64)


def _grams(x: np.ndarray, n: int) -> np.ndarray:
  """All n-grams of sequences (m, L), each one number."""
  base = 2**20  # of three tokens below it the number is exact
  parts = [x[:, k : x.shape[1] - n + 1 + k] for k in range(n)]
  return np.sum([part * base**k for k, part in enumerate(parts)], axis=0).ravel()


def _from_law(samples: np.ndarray, every: np.ndarray, p: np.ndarray) -> float:
  """Total variation of the sequences' frequencies from probabilities p of `every` one that can be."""
  top = int(every.max()) + 1
  inside = ((samples >= 0) & (samples < top)).all(1)
  place = np.ravel_multi_index(tuple(samples[inside].T), (top,) * samples.shape[1])
  found = np.bincount(place, minlength=len(p)) / len(samples)
  return float((np.abs(found - p).sum() + 1 - inside.mean()) / 2)
