"""Sequences of tokens: x is (L,) int32 in 0..vocabulary-1; of two sets the probability of every sequence is known."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.options import check_made, whole
from diffjax.data.seeds import of_split
from diffjax.data.words import SENTENCES, letters
from diffjax.errors import InputError

__all__ = ['Sequences', 'chains', 'digits_levels', 'grammar']

START = (0.6, 0.3, 0.1)
ROWS = ((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.25, 0.25, 0.5))
ENUMERABLE = 2**16


def chains(
  split: str,
  *,
  length: int = 4,
  start: Sequence[float] = START,
  rows: Sequence[Sequence[float]] = ROWS,
  n: int = 2**14,
  seed: int = 0,
) -> DataSet:
  """A Markov chain: p(x) = start[x_1] prod_l rows[x_l-1][x_l]; by default 81 sequences of entropy 3.214801 nats.

  Args:
    split: train or test.
    length: of a sequence.
    start: (V,) probabilities of the first token.
    rows: (V, V), those of the next by the one before.
    n: sequences, independent.
    seed: of the sequences.
  """
  check_made(split, n, seed)
  whole('data.length', length, 1)
  v = len(start)
  if any(len(row) != v for row in rows) or len(rows) != v:
    raise InputError(f'data.rows: got {[len(row) for row in rows]} numbers a row; allowed: {v} rows of {v}, as start')
  table = np.array([start, *rows], float)
  if not (table >= 0).all() or not np.allclose(table.sum(1), 1, rtol=0, atol=1e-6):
    raise InputError('data.start, data.rows: got numbers that are no probabilities; allowed: >= 0, of sum 1 a row')
  table /= table.sum(1, keepdims=True)
  return _made('chains', split, Sequences(table, np.tile(np.arange(1, v + 1), (v + 1, 1)), length), n, seed)


def grammar(split: str, *, length: int = 32, n: int = 2**14, seed: int = 0) -> DataSet:
  """Bytes of English-like sentences, cut to `length`; bytes(x).decode() reads them.

      sentence = phrase ' ' verb ' ' phrase '. '      phrase = 'the ' adjectives noun
      adjectives = nothing (probability .7) | adjective ' ' adjectives (.3)

  with six nouns, four verbs and four adjectives of the probabilities in `words.SENTENCES`. Text is sentences end to
  end, x its first `length` bytes. No text has two derivations, so that the entropy is that of the choices:
  a sentence has 2 (h(.3) + .3 H(adjective)) / .7 + 2 H(noun) + H(verb) nats, h that of a coin, and a byte in the long
  run that over the mean length, `words.SENTENCES.rate`. `law.entropy` is exact at every length.

  Args:
    split: train or test.
    length: bytes of a sequence.
    n: sequences, independent.
    seed: of the sequences.
  """
  check_made(split, n, seed)
  whole('data.length', length, 1)
  return _made('grammar', split, Sequences(*letters(SENTENCES), length), n, seed)


def digits_levels(split: str, data_dir: str | None = None) -> DataSet:
  """The digits' 64 pixels, row by row, as tokens 0..15: min(v, 15) of the raw v of 0..16; their label in 'cond'."""
  from diffjax.data.digits import digits

  known = digits(split, data_dir).arrays()
  x = np.minimum(np.rint((known['x'].reshape(-1, 64) + 1) * 8), 15).astype(np.int32)
  return DataSet('digits_levels', Arrays(x, known['cond']), (64,), 10, vocabulary=16)


@dataclasses.dataclass(frozen=True)
class Sequences:
  """The law of sequences that an automaton writes whose tokens tell its states.

  From state s (0 at first) token v comes with probability `table[s, v]` and leads to state `following[s, v]`. A
  sequence has one path, so log p(x) = sum_l log table[s_l, x_l].

  Attributes:
    table: (S, V) probabilities, of sum 1 a row.
    following: (S, V) states; where the probability is 0 they do not matter.
    length: tokens of a sequence.
  """

  table: np.ndarray
  following: np.ndarray
  length: int

  def log_prob(self, x: np.ndarray) -> np.ndarray:
    """Of sequences (n, L), or their first so many tokens: (n,) in nats, -inf for what is never written."""
    x = np.asarray(x, int)
    state, total = np.zeros(len(x), int), np.zeros(len(x))
    known = ((x >= 0) & (x < self.table.shape[1])).all(1)
    x = np.where(known[:, None], x, 0)
    with np.errstate(divide='ignore'):
      logs = np.log(self.table)
    for token in x.T:
      total += logs[state, token]
      state = self.following[state, token]
    return np.where(known, total, -np.inf)

  def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
    """Independent sequences (n, L), by inverting the distribution of each token in turn."""
    state, x = np.zeros(n, int), np.empty((n, self.length), np.int32)
    upper = np.cumsum(self.table, 1) / self.table.sum(1, keepdims=True)
    for place in range(self.length):
      x[:, place] = (rng.uniform(size=(n, 1)) >= upper[state]).sum(1)
      state = self.following[state, x[:, place]]
    return x

  @property
  def entropy(self) -> float:
    """H(x) = sum_l E H(x_l | s_l) in nats, exact: the law of the state is carried along."""
    logs = np.log(np.where(self.table > 0, self.table, 1))
    uncertain = -(self.table * logs).sum(1)
    at, total = np.eye(len(self.table))[0], 0.0
    for _ in range(self.length):
      total += at @ uncertain
      at = np.bincount(self.following.ravel(), (at[:, None] * self.table).ravel(), len(at))
    return float(total)

  @property
  def count(self) -> int:
    """How many sequences of this length and vocabulary there are, written or not."""
    return self.table.shape[1] ** self.length

  def every(self) -> tuple[np.ndarray, np.ndarray]:
    """All sequences (V^L, L) in lexical order and their probabilities.

    Raises:
      InputError: there are more than 65536.
    """
    if self.count > ENUMERABLE:
      raise InputError(f'{self.count} sequences; allowed: up to {ENUMERABLE} to be listed')
    x = np.stack(np.unravel_index(np.arange(self.count), (self.table.shape[1],) * self.length), -1).astype(np.int32)
    return x, np.exp(self.log_prob(x))


def _made(name: str, split: str, law: Sequences, n: int, seed: int) -> DataSet:
  x = law.sample(of_split(seed, name, split), n)
  return DataSet(name, Arrays(x), (law.length,), vocabulary=law.table.shape[1], law=law)
