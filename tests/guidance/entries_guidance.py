"""The rows of guidance in the property table."""

import jax
import jax.numpy as jnp
import numpy as np
from entries import CLASSES, IMAGE, POINT, Entry, denoiser, weights

from diffjax import guidance, nets, schedules
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser


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


def worse(denoise):
  """Another network of the same process."""
  return denoise.replace(params=jax.tree.map(lambda leaf: 0.7 * leaf, denoise.params))


def looking(seed, dtype='float32'):
  """A network with attention."""
  net = nets.dit(depth=1, width=8, heads=1, classes=CLASSES, dtype=dtype)
  return Denoiser(weights(net, seed, IMAGE), schedules.cosine(), as_kind('v'), CLASSES, net=net)


def attending(make):
  return Entry(lambda seed, dtype: make(looking(seed, dtype), 1.3 + 0.2 * seed), run_transform, IMAGE)


def read(x, t):
  """A classifier's logits for the tests."""
  return jnp.stack([jnp.sum(x, -1), x[:, 0] * x[:, 1], 0.3 * t + jnp.sin(x[:, 0])], -1)


BOX = np.arange(16).reshape(4, 4) < 6


TRANSFORMS = {
  'annealed': transform(guidance.annealed),
  'converted': transform(lambda denoise, v: guidance.converted(denoise, schedules.cosine())),
  'product': transform(lambda denoise, v: guidance.product((denoise, denoise), (v, -0.5))),
  'mean_reverting': transform(lambda denoise, v: guidance.mean_reverting(denoise, jnp.asarray([v, -v]))),
  'centred': transform(lambda denoise, v: guidance.centred(denoise), (2, 4)),
  'apg': transform(lambda denoise, v: guidance.apg(denoise, v, v / 4, v, v / -4)),
  'attentive_eraser': attending(lambda denoise, v: guidance.attentive_eraser(denoise, BOX, v)),
  'autoguidance': transform(lambda denoise, v: guidance.autoguidance(denoise, worse(denoise), v)),
  'cfg': transform(lambda denoise, v: guidance.cfg(denoise, v, interval=(0.1, v))),
  'cfg_rescale': transform(lambda denoise, v: guidance.cfg_rescale(denoise, v, v / 4)),
  'cfg_zero': transform(lambda denoise, v: guidance.cfg_zero(denoise, v, 0.1)),
  'cfgpp': transform(guidance.cfgpp),
  'classifier_guidance': transform(lambda denoise, v: guidance.classifier_guidance(denoise, towards_zero, v)),
  'dynamic_threshold': transform(lambda denoise, v: guidance.dynamic_threshold(denoise, v / 2, v / 4)),
  'protected': transform(
    lambda denoise, v: guidance.protected(denoise, [[v, v]], [[-v, v / 2]], jnp.asarray([True, False]))
  ),
  'sine': transform(lambda denoise, v: guidance.sine(denoise, denoise, jnp.asarray(1), v, v / 4, v / 8)),
  'elucd': transform(lambda denoise, v: guidance.elucd(denoise, read, v)),
  'elucd_kick': transform(lambda denoise, v: guidance.elucd_kick(denoise, read, v)),
  'feedback': transform(lambda denoise, v: guidance.feedback(denoise, v / 4)),
  'gradient_free': transform(lambda denoise, v: guidance.gradient_free(denoise, read, v)),
  'mix': transform(lambda denoise, v: guidance.mix(denoise, (worse(denoise),), (v,))),
  'perturbed_attention': attending(guidance.perturbed_attention),
  'prox': transform(lambda denoise, v: guidance.prox(denoise, towards_zero, v / 4, steps=2, spread=v / 4)),
  'rectified_gradient': transform(guidance.rectified_gradient),
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
  'detail',
  'egsde',  # made of tilt
  'experts',  # log-weights for classifier_guidance
  'high_frequency',  # of images alone, moves x
  'log_prob_of',
  'low_pass',
  'mean_energy',
  'mixed',
  'observed_ddpm',
  'observed_series',  # made of tilt
  'plug_and_play',
  'property_energy',  # a log-weight for tilt
  'pushed',
  'quantile_energy',
  'refined',
  'slope_of',
  'universal',  # made of tilt and prox
  'with_covariance',
  'with_moments',
}
GROUPS = {'guidance': (TRANSFORMS, set(guidance.__all__) - HELPERS)}
