"""The laws of token sequences against sums over all of them, over the derivations of a grammar, and against draws."""

import itertools

import numpy as np
import pytest

from diffjax.data import load
from diffjax.data.tokens import ROWS, START
from diffjax.data.words import SENTENCES, Grammar, letters

UNEVEN = dict(start=(0.0, 1.0), rows=((0.5, 0.5), (0.9, 0.1)))


@pytest.mark.parametrize('options', [{}, UNEVEN])
def test_probabilities_of_chains(options):
  """The product of start and transitions, of sum 1; the entropy is theirs, by default that of the published fixture."""
  data = load('chains', n=10, length=4, **options)
  start, rows = np.array(options.get('start', START)), np.array(options.get('rows', ROWS))
  x, p = data.law.every()
  assert data.vocabulary == len(start) and len(x) == len(start) ** 4
  for sequence, probability in zip(x, p, strict=True):
    product = start[sequence[0]]
    for a, b in itertools.pairwise(sequence):
      product *= rows[a, b]
    assert probability == pytest.approx(product, rel=1e-12, abs=0)
  entropy = -sum(q * np.log(q) for q in p if q)
  assert data.law.entropy == pytest.approx(entropy, rel=1e-12)
  if not options:
    assert entropy == pytest.approx(3.214801, abs=5e-7)


def test_chains_are_drawn_by_their_law():
  """Counts of all 81 sequences within six deviations, on both splits; splits and seeds differ."""
  drawn = [load('chains', split, seed=seed) for split, seed in (('train', 0), ('test', 0), ('train', 1))]
  assert (drawn[0].kind, drawn[0].shape, drawn[0].arrays()['x'].dtype) == ('tokens', (4,), np.int32)
  for data in drawn:
    p, n = data.law.every()[1], data.size
    counts = np.bincount(data.arrays()['x'] @ [27, 9, 3, 1], minlength=81)
    assert (np.abs(counts - n * p) < 6 * np.sqrt(n * p * (1 - p)) + 1).all()
  a, b, c = (data.arrays()['x'] for data in drawn)
  assert (a != b).any() and (a != c).any()


def test_what_is_never_written():
  law = load('chains', n=1, length=2, **UNEVEN).law
  assert law.log_prob([[0, 0], [1, 2], [-1, 0]]).tolist() == [-np.inf] * 3
  with pytest.raises(ValueError, match='1099511627776 sequences; allowed: up to 65536'):
    load('chains', n=1, length=40, **UNEVEN).law.every()


def derivation(sentence, grammar):
  """The product of the probabilities of the choices that derive a sentence."""
  words = sentence.removesuffix('. ').split(' ')
  second = words.index('the', 1)
  first, rest = words[1:second], words[second + 1 :]
  (*some, noun, verb), (*others, object_) = first, rest
  p = grammar.nouns[noun] * grammar.verbs[verb] * grammar.nouns[object_] * (1 - grammar.more) ** 2
  for word in some + others:
    p *= grammar.more * grammar.adjectives[word]
  return p


def encoded(text):
  return np.frombuffer(text.encode(), np.uint8)[None]


def test_probability_of_a_text_is_that_of_its_derivation():
  """Of every sentence without and with adjectives: letter by letter as choice by choice."""
  law = load('grammar', n=1).law
  for noun, verb, other in itertools.product(SENTENCES.nouns, SENTENCES.verbs, SENTENCES.nouns):
    for text in (f'the {noun} {verb} the {other}. ', f'the big {noun} {verb} the old brown big {other}. '):
      expected = np.log(derivation(text, SENTENCES))
      np.testing.assert_allclose(law.log_prob(encoded(text)), expected, rtol=1e-12)
      np.testing.assert_allclose(law.log_prob(encoded(text + text)), 2 * expected, rtol=1e-12)
  for text in ('the cat sees the cot', 'the big', 'a'):
    assert np.isinf(law.log_prob(encoded(text))[0]) == (text != 'the big')


def test_entropy_of_a_grammar():
  """Analytic, against the automaton's: the entropy of a byte in the long run, and of a sentence by listing them all."""
  table, following = letters(SENTENCES)
  law = load('grammar', n=1, length=4000).law
  longer = load('grammar', n=1, length=4000 + 2000).law
  assert (longer.entropy - law.entropy) / 2000 == pytest.approx(SENTENCES.rate, rel=1e-4)
  np.testing.assert_allclose(table.sum(1), 1, rtol=1e-12)
  small = Grammar({'a': 0.25, 'ab': 0.75}, {'b': 1.0}, {'c': 0.5, 'cd': 0.5}, 0.2)
  total = length = mass = 0.0
  phrases = [(w, 0.8 * 0.2**k * 0.5**k) for k in range(8) for w in itertools.product(small.adjectives, repeat=k)]
  for (u, p), (v, q), (noun, r), (other, s) in itertools.product(
    phrases[:63], phrases[:63], small.nouns.items(), small.nouns.items()
  ):
    text = ' '.join(['the', *u, noun, 'b', 'the', *v, other]) + '. '
    probability = p * q * r * s
    total -= probability * np.log(probability)
    length, mass = length + probability * len(text), mass + probability
  # six adjectives and more have probability .2^6 on either side, and some 20 nats each
  assert 1 - mass < 3 * 0.2**6
  assert total == pytest.approx(small.entropy, abs=40 * (1 - mass))
  assert length == pytest.approx(small.mean_length, abs=80 * (1 - mass))


def test_grammar_is_drawn_by_its_law():
  """Whole sentences of the words; the mean log-probability is minus the exact entropy, within six standard errors."""
  data = load('grammar', length=80)
  x = data.arrays()['x']
  assert (data.kind, data.vocabulary, data.shape) == ('tokens', 256, (80,))
  for row in x[:200]:
    for sentence in bytes(row.tolist()).decode().split('. ')[:-1]:
      assert derivation(f'{sentence}. ', SENTENCES) > 0
  log_prob = data.law.log_prob(x)
  assert abs(log_prob.mean() + data.law.entropy) < 6 * log_prob.std() / np.sqrt(len(x))


def test_digits_as_tokens(home, digits):
  data, known = load('digits_levels', 'train', home), digits.arrays()
  x = data.arrays()['x']
  assert (data.vocabulary, data.shape, data.classes, x.dtype) == (16, (64,), 10, np.int32)
  assert x.min() == 0 and x.max() == 15
  raw = (known['x'].reshape(-1, 64) + 1) * 8
  assert ((x == raw) | (x == 15) & (raw == 16)).all() and (raw == 16).any()
  np.testing.assert_array_equal(data.arrays()['cond'], known['cond'])
