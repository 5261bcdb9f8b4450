"""The digits protocol's fixed parts: the split, the 16-d feature and the label network.

scikit-learn's 1797 digits, permutation of seed 0, 1437 to train and 360 held out. The feature is the standardised 16-d
penultimate layer of a small convolutional network trained on all 1797 (neither split is favoured); labels come from a
second one that saw the training split only. Both live in `digits.npz`, made by `python -m experiments.digits_features`;
the forward passes are NumPy, so that anyone can recompute a report from `samples.npz`.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.fingerprint import digest
from diffjax.metrics.features import Features

__all__ = ['features', 'labels', 'load', 'maps', 'networks', 'split']

WEIGHTS = pathlib.Path(__file__).with_name('digits.npz')
COUNT, TRAIN = 1797, 1437


def split() -> tuple[np.ndarray, np.ndarray]:
  """Indices into scikit-learn's order: 1437 to train on and 360 held out."""
  order = np.random.RandomState(0).permutation(COUNT)
  return order[:TRAIN], order[TRAIN:]


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """The digits of the protocol: (images, labels) of the training split and of the held-out one, images in [-1, 1]."""
  from sklearn.datasets import load_digits

  data: Any = load_digits()  # typed as a union of what its options return
  images = (data.images[..., None] / 8 - 1).astype(np.float32)
  classes = data.target.astype(np.int32)
  train, held = split()
  return (images[train], classes[train]), (images[held], classes[held])


def forward(params: dict[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Hidden layer (n,16) in (-1,1) and logits (n,10): conv 3x3, two of stride 2, tanh layer, read-out; in float64."""
  x = np.asarray(images, np.float64)
  for i in range(3):
    x = _convolve(x, params[f'conv{i}'], 2 if i else 1)
    x = np.maximum(x + params[f'bias{i}'], 0)
  hidden = np.tanh(x.reshape(len(x), -1) @ params['w'] + params['b'])
  return hidden, hidden @ params['v'] + params['c']


def features(images: np.ndarray) -> np.ndarray:
  """Images (n,8,8,1) in [-1,1] to standardised features (n,16), float64.

  Raises:
    InputError: images of another shape, or not finite.
  """
  params = networks()['feature']
  return (forward(params, _checked(images))[0] - params['mean']) / params['std']


def maps(images: jax.Array) -> jax.Array:
  """The feature network's maps of images (n,8,8,1) after its second convolution, (n,16,32): one row a 2 x 2 patch."""
  params, x = networks()['feature'], images
  for i in range(2):
    kernel, stride = jnp.asarray(params[f'conv{i}'], x.dtype), 2 if i else 1
    x = jax.lax.conv_general_dilated(
      x, kernel, (stride,) * 2, ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    x = jax.nn.relu(x + jnp.asarray(params[f'bias{i}'], x.dtype))
  return x.reshape(len(x), 16, -1)


def labels(images: np.ndarray) -> np.ndarray:
  """The class (n,) int32 that the network of the training split reads in images (n,8,8,1).

  Raises:
    InputError: images of another shape, or not finite.
  """
  return forward(networks()['label'], _checked(images))[1].argmax(1).astype(np.int32)


@functools.cache
def feature_function() -> Features:
  """`features` under the id that reports quote: `digits-conv16-` and the hash of both networks' weights."""
  parts = networks()
  return Features('digits-conv16-' + digest({f'{p}_{k}': v for p in parts for k, v in parts[p].items()}), features)


@functools.cache
def networks() -> dict[str, dict[str, np.ndarray]]:
  """The weights of the two networks, feature and label, by name."""
  with np.load(WEIGHTS) as arrays:
    parts = dict(feature={}, label={})
    for name in arrays.files:
      part, key = name.split('_', 1)
      parts[part][key] = arrays[name]
  return parts


def _checked(images):
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[1:] != (8, 8, 1):
    raise InputError(f'images have shape {images.shape}; the digits networks take (n, 8, 8, 1)')
  if not np.isfinite(images).all():
    raise InputError('images contain NaN or infinity; the digits networks take values in [-1, 1]')
  return images


def _convolve(x, kernel, stride):
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
  return np.tensordot(windows, kernel, axes=([3, 4, 5], [2, 0, 1]))
