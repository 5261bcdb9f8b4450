"""Random streams of NumPy by (seed, index), and by (seed, set, split)."""

import hashlib

import numpy as np

__all__ = ['of_split', 'stream']


def stream(seed: int, index: int, *kind: int) -> np.random.RandomState:
  """The random numbers of (seed, index), whole numbers of at least 0 of any size; others for another pair or `kind`.

  RandomState, since NumPy froze its stream.
  """
  words = [seed, index]
  if max(words) >= 2**32:  # SeedSequence strings such numbers together: (2^33 + 1, 0) would be (1, 2)
    words = np.frombuffer(hashlib.sha256(f'{seed} {index}'.encode()).digest(), '<u4').tolist()
  return np.random.RandomState(np.random.SeedSequence(words, spawn_key=kind).generate_state(4))


def of_split(seed: int, name: str, split: str) -> np.random.RandomState:
  """The random numbers of one split of a made set: the same for the same arguments, independent otherwise."""
  return np.random.RandomState(np.random.SeedSequence([seed, *f'{name}/{split}'.encode()]).generate_state(4))
