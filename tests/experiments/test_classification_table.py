"""The classification table: its heads on digits, and its loop on a few examples with a tiny network."""

import jax
import numpy as np
import pytest

from diffjax import nets
from diffjax.metrics import digits
from diffjax.represent import accuracy
from experiments.tables.classification import heads, trained


def test_heads_learn_with_examples():
  """Both tell most digits of 300 examples, the discriminative one more of all of them."""
  (x, y), (held, known) = digits.load()
  few, all_of_them = (heads(x[:n], y[:n], held, known) for n in (300, len(x)))
  assert min(few.values()) > 0.75 and all_of_them['logistic'] > max(0.93, all_of_them['naive Bayes'])


@pytest.mark.slow
def test_a_denoiser_is_trained_and_judged():
  """Two classes that an MLP of 200 steps tells apart: all black or white images of one digit's size."""
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, 128).astype(np.int32)
  x = (y[:, None] * 1.6 - 0.8 + 0.1 * rng.standard_normal((128, 4))).astype(np.float32)
  denoise = trained(x, y, 200, nets.mlp(width=32, depth=1, classes=10))
  assert accuracy(denoise, x, y, jax.random.key(0), 2, stages=((8, 1),)).accuracy > 0.95
