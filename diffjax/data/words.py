"""A small probabilistic grammar of sentences, its entropy, and the automaton that writes it letter by letter."""

import dataclasses
from collections.abc import Mapping

import numpy as np

__all__ = ['SENTENCES', 'Grammar', 'letters']

BYTES = 256


@dataclasses.dataclass(frozen=True)
class Grammar:
  """'the ' adjective* noun ' ' verb ' the ' adjective* noun '. ', words by their probabilities.

  `more` is the probability of a further adjective. No adjective is a noun, so that a sentence has one derivation.
  """

  nouns: Mapping[str, float]
  verbs: Mapping[str, float]
  adjectives: Mapping[str, float]
  more: float

  @property
  def entropy(self) -> float:
    """Nats of a sentence: 2 ((h(more) + more H(adjective)) / (1 - more) + H(noun)) + H(verb)."""
    coin = _entropy({'more': self.more, 'no more': 1 - self.more})
    described = (coin + self.more * _entropy(self.adjectives)) / (1 - self.more)
    return 2 * (described + _entropy(self.nouns)) + _entropy(self.verbs)

  @property
  def mean_length(self) -> float:
    """Bytes of a sentence: 2 (4 + (E |adjective| + 1) more / (1 - more) + E |noun|) + E |verb| + 4."""
    described = (_length(self.adjectives) + 1) * self.more / (1 - self.more)
    return 2 * (4 + described + _length(self.nouns)) + _length(self.verbs) + 4

  @property
  def rate(self) -> float:
    """Nats a byte of endless text: those of a sentence over its mean length."""
    return self.entropy / self.mean_length


SENTENCES = Grammar(
  nouns={'cat': 0.3, 'dog': 0.2, 'child': 0.2, 'crow': 0.15, 'bee': 0.1, 'bear': 0.05},
  verbs={'sees': 0.4, 'hears': 0.3, 'likes': 0.2, 'follows': 0.1},
  adjectives={'big': 0.4, 'brown': 0.3, 'calm': 0.2, 'old': 0.1},
  more=0.3,
)


def letters(grammar: Grammar) -> tuple[np.ndarray, np.ndarray]:
  """The grammar as an automaton on bytes: probabilities (S, 256) of the next byte, and the states (S, 256) it leads to.

  A state is a place in the sentence with the letters of the present word so far; the next letter has the share of the
  words that go on with it among those that are still possible.
  """
  described = {f'{word} ': grammar.more * p for word, p in grammar.adjectives.items()}
  first, second = ({f'{word}{end}': (1 - grammar.more) * p for word, p in grammar.nouns.items()} for end in (' ', '. '))
  verbs = {f'{word} the ': p for word, p in grammar.verbs.items()}
  # places of a sentence: the words that may stand there, and the place that each leads to
  parts = [
    {'the ': (1.0, 1)},
    {w: (p, 1) for w, p in described.items()} | {w: (p, 2) for w, p in first.items()},
    {w: (p, 3) for w, p in verbs.items()},
    {w: (p, 3) for w, p in described.items()} | {w: (p, 0) for w, p in second.items()},
  ]
  prefixes = [(i, word[:k]) for i, part in enumerate(parts) for word in part for k in range(len(word))]
  states = {state: i for i, state in enumerate(dict.fromkeys(prefixes))}
  table, following = np.zeros((len(states), BYTES)), np.zeros((len(states), BYTES), int)
  for (place, prefix), state in states.items():
    for word, (p, goes_to) in parts[place].items():
      if word.startswith(prefix):
        letter, ended = ord(word[len(prefix)]), len(word) == len(prefix) + 1
        table[state, letter] += p
        following[state, letter] = states[goes_to, ''] if ended else states[place, word[: len(prefix) + 1]]
  return table / table.sum(1, keepdims=True), following


def _entropy(choices: Mapping[str, float]) -> float:
  return -sum(p * np.log(p) for p in choices.values() if p)


def _length(words: Mapping[str, float]) -> float:
  return sum(p * len(word) for word, p in words.items())
