"""What one call of a loss draws is independent: the times, the noise of every modality, drops, the network's own.

The network of these tests keeps what it is handed. Data are zeros, so that x / sigma(t) is the noise.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rankdata

from diffjax import keys, losses, schedules

N = 4000
FLOW = schedules.flow(t_min=0.01)  # sigma = t
LABELS = 1


def listening(heads=1):
  """A network that answers nothing, and the list of all it is handed."""
  heard = []

  def net(params, x, t, cond, key):
    heard.append((x, t, cond, key))
    return jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape[:-1], heads * leaf.shape[-1])), x)

  return net, heard


def draws(name):
  """All that a loss of this name draws for N examples: {what: (N,)}."""
  pair = {'a': jnp.zeros((N, 2)), 'b': jnp.zeros((N, 2))}
  net, heard = listening()
  options = {'kind': 'x0'}
  if name == 'moments':
    loss = losses.moments(FLOW, net)
  elif name == 'modalities':
    loss = losses.modalities(FLOW, net, ends=0.0, **options)
  else:
    loss = losses.denoising(FLOW, net, drop_cond=0.4, null=LABELS, **options)
  x0 = jnp.zeros((N, 2)) if name in ('denoising', 'moments') else pair
  cond = {} if name == 'modalities' else {'cond': jnp.zeros(N, jnp.int32)}
  loss({'student': ()}, {'x': x0, **cond}, jax.random.key(0))
  x, t, cond, key = heard[0]
  t = jax.tree.map(lambda t: t / 1000, t)
  found = {f't {path}': v for path, v in jax.tree.leaves_with_path(t)}
  noise = jax.tree.map(lambda x, t: x / t[:, None], x, t if isinstance(t, dict) else jax.tree.map(lambda _: t, x))
  for path, eps in jax.tree.leaves_with_path(noise):
    found |= {f'noise {path} {i}': eps[:, i] for i in range(2)}
  if name in ('denoising', 'several'):
    found['drop_cond'] = cond == LABELS
  for i, k in enumerate((key, keys.fold(key, 0), keys.fold(key, 1))):
    found[f'of the network {i}'] = keys.uniform(k)
  return {what: np.asarray(values, np.float64) for what, values in found.items()}


@pytest.mark.parametrize('name', ['denoising', 'several', 'modalities', 'moments'])
def test_draws_are_independent(name):
  """Ranks, and distances from the middle rank, of any two are uncorrelated: within 5 / sqrt(N) of 0."""
  found = draws(name)
  assert len(found) >= 6
  ranks = {what: rankdata(values) / N - 0.5 for what, values in found.items()}
  for (one, a), (other, b) in itertools.combinations(ranks.items(), 2):
    for f, g in itertools.product((lambda r: r, abs), repeat=2):
      x, y = f(a), g(b)
      if np.std(x) > 1e-9 and np.std(y) > 1e-9:
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 / np.sqrt(N), (one, other)


@pytest.mark.parametrize('shapes', [((3,), (3,)), ((2, 2, 1), (2, 2, 1), (2, 2, 1)), ((3,), (2, 3))])
def test_modalities_have_noise_of_their_own(shapes):
  """Of one shape or not, drawn by `normal` and as a start by `prior`: every pair of numbers is uncorrelated."""
  like = {str(i): jnp.zeros((N, *shape)) for i, shape in enumerate(shapes)}
  for drawn in (keys.normal(keys.per_sample(jax.random.key(0), N), like),
                FLOW.prior(keys.per_sample(jax.random.key(1), N), like)):  # fmt: skip
    rows = np.concatenate([np.reshape(x, (N, -1)) for x in drawn.values()], 1)
    between = np.corrcoef(rows.T) - np.eye(rows.shape[1])
    assert np.abs(between).max() < 5 / np.sqrt(N)
