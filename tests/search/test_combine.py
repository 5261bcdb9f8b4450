"""Combinations of checkpoints: the sum, the averages among them, and a search whose optimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.search import averages, combine, combined

RNG = np.random.default_rng(0)
STACK = {
  'w': RNG.normal(size=(4, 3, 2)).astype(np.float32),
  'b': np.array([[-0.0], [1.0], [np.pi], [-2.0]], np.float32),
}


def bits(x):
  return np.asarray(x).view(np.uint32)


@pytest.mark.parametrize('k', range(4))
def test_one_coefficient_is_that_checkpoint_to_the_last_bit(k):
  """The sign of zero too."""
  made = combined(STACK, np.eye(4)[k])
  for name, leaf in STACK.items():
    np.testing.assert_array_equal(bits(made[name]), bits(leaf[k]))


def test_the_sum_is_linear_and_negative_weights_count():
  a = np.array([2.0, -1.5, 0.25, 0.25])
  np.testing.assert_allclose(combined(STACK, a)['w'], np.tensordot(a, STACK['w'].astype(np.float64), 1), atol=2e-6)
  half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), STACK)
  assert combined(half, a)['w'].dtype == jnp.bfloat16  # the sum itself is float32: no rounding between terms
  want = np.tensordot(a, np.asarray(half['w'], np.float64), 1)
  np.testing.assert_allclose(np.asarray(combined(half, a)['w'], np.float32), want, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize('count', [2, 3, 40])
def test_averages_sum_to_one_and_are_what_they_are_called(count):
  made = averages(count)
  assert all(len(a) == count and a.sum() == pytest.approx(1, abs=1e-12) for a in made.values())
  np.testing.assert_array_equal(made['last'], np.eye(count)[-1])
  np.testing.assert_allclose(made['rate 0.9'][-2] / made['rate 0.9'][-1], 0.9)
  np.testing.assert_allclose(made[f'last {count} evenly'], 1 / count)


def test_finds_the_weights_of_a_known_optimum():
  """The score is the square distance of the sum from a combination with negative weights, which no average reaches."""
  tree = {'w': RNG.normal(size=(5, 30))}
  best = np.array([0.3, -0.4, 0.2, 1.5, -0.6])
  score = lambda a: float(np.sum(((a - best) @ tree['w']) ** 2))  # noqa: E731
  found = combine(score, 5, 1500, seed=1)
  assert found.coefficients.sum() == pytest.approx(1, abs=1e-9) and score(found.coefficients) == found.score
  assert found.score <= 0.02 * min(found.averages.values()) and len(found.history) == 1500
  assert all(b <= a for a, b in zip(found.history, found.history[1:], strict=False))
  again = combine(score, 5, 1500, seed=1)
  np.testing.assert_array_equal(again.coefficients, found.coefficients)


def test_a_penalty_makes_the_weights_smaller_and_lost_samples_are_left_out():
  best = np.array([0.9, -0.7, 0.8])
  score = lambda a: float(np.sum((a - best) ** 2)) if a[0] < 0.95 else np.nan  # noqa: E731
  free, held = (combine(score, 3, 600, penalty=penalty) for penalty in (0.0, 1.0))
  # the least of |a - b|^2 + p |a|^2 on sum 1 is (b + m) / (1 + p), m = ((1 + p) - sum b) / 3
  np.testing.assert_allclose(free.coefficients, best, atol=0.05)
  np.testing.assert_allclose(held.coefficients, (best + 1 / 3) / 2, atol=0.05)
  assert np.isfinite(held.score)


def test_refusals():
  for make, message in (
    (lambda: combined(STACK, [1.0, 0.0]), r'coefficients: got \(2,\) of sum 1; allowed: one of each of the 4'),
    (lambda: combined(STACK, [1.0, 1.0, 0.0, 0.0]), r'coefficients: got \(4,\) of sum 2'),
    (lambda: combine(abs, 1, 100), 'checkpoints, penalty, budget: got 1, 0.0, 100'),
    (lambda: combine(abs, 4, 5), 'got 4, 0.0, 5; allowed: at least 2'),
    (lambda: combine(abs, 4, 100, penalty=-1.0), 'got 4, -1.0, 100'),
  ):
    with pytest.raises(InputError, match=message):
      make()
