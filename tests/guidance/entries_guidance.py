"""The rows of guidance in the property table."""

import jax.numpy as jnp
from entries import POINT, Entry, denoiser

from diffjax import guidance


def transform(make, shape=POINT):
  """make(denoise, value): the transform with its numbers at `value`, something between 1 and 2."""

  return Entry(lambda seed, dtype: make(denoiser(seed, dtype, shape), 1.3 + 0.2 * seed), run_transform, shape)


def run_transform(denoise, x, cond, key):
  return denoise(x, 0.5, cond)[:2]


def towards_zero(x, t, cond):
  """A classifier's log probability for the tests."""
  return -jnp.sum(x**2, -1) * (1 + cond)


def seen(x0):
  """The mean of the two elements, for the tests."""
  return jnp.mean(x0, -1, keepdims=True)


def seen_from(y):
  return jnp.repeat(y, 2, -1)


TRANSFORMS = {
  'mean_reverting': transform(lambda denoise, v: guidance.mean_reverting(denoise, jnp.asarray([v, -v]))),
  'centred': transform(lambda denoise, v: guidance.centred(denoise), (2, 4)),
  'cfg': transform(lambda denoise, v: guidance.cfg(denoise, v, interval=(0.1, v))),
  'cfgpp': transform(guidance.cfgpp),
  'classifier_guidance': transform(lambda denoise, v: guidance.classifier_guidance(denoise, towards_zero, v)),
  'dynamic_threshold': transform(lambda denoise, v: guidance.dynamic_threshold(denoise, v / 2, v / 4)),
  'prox': transform(lambda denoise, v: guidance.prox(denoise, towards_zero, v / 4, steps=2, spread=v / 4)),
  'replaced': transform(lambda denoise, v: guidance.replaced(denoise, seen, seen_from, jnp.full((1, 1), v))),
  'steered': transform(lambda denoise, v: guidance.steered(denoise, towards_zero, v / 4, interval=(0.1, v))),
  'threshold': transform(lambda denoise, v: guidance.threshold(denoise, -v / 4, v / 4)),
  'tilt': transform(lambda denoise, v: guidance.tilt(denoise, towards_zero, v, at='x0')),
  'time_shift': transform(lambda denoise, v: guidance.time_shift(denoise, v / 4, v / 8, 'net_only')),
}
HELPERS = {
  'branches',
  'chain',
  'cost',
  'property_energy',
  'pushed',
  'slope_of',
  'universal',
  'with_covariance',
  'with_moments',
}
GROUPS = {'guidance': (TRANSFORMS, set(guidance.__all__) - HELPERS)}
