"""Trees on exact kernels in one dimension: the tilted law from walks on the final tree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, schedules
from diffjax.errors import InputError
from diffjax.methods import Solved
from diffjax.steering import best_of, exact_steps, tree_sampling, tree_search

PROCESS = schedules.edm(0.01, 8.0)
LINE = exact.mixture([0.6, 0.3, 0.1], [[-2.0], [0.0], [2.0]], [0.09] * 3)
STEPS = exact_steps(LINE, PROCESS, [8, 2, 1, 0.5, 0.2, 0])
GENERATOR = Solved(LINE.denoiser(PROCESS), STEPS, (jnp.asarray(8.0), jnp.zeros(()), jnp.zeros(())), (1,))
WANT = np.array([0.279, 0.379, 0.343])  # of the tilt by .5 x


def slope(x, cond):
  return 0.5 * x[:, 0]


@partial(jax.jit, static_argnums=(1, 2))
def walked(made, trees, walks):
  own = keys.per_sample(jax.random.key(0), trees)
  tree, spent, record = made.grown(own)
  each = jax.vmap(lambda i: made.walk(tree, keys.fold(own, i)))(jnp.arange(walks))
  return each[..., 0], spent, record


def distance(x):
  """(walks, trees) -> the mean distance of a tree's law to the truth."""
  near = np.argmin(np.abs(np.asarray(x)[..., None] - np.array([-2, 0, 2])), -1)
  return np.mean([np.abs([(near[:, i] == k).mean() - WANT[k] for k in range(3)]).sum() / 2 for i in range(x.shape[1])])


@pytest.mark.slow
def test_a_tree_is_consistent():
  """Soft values are the log-mean-exp of the children's, budgets count new nodes, records rise; walks end at leaves."""
  made = tree_sampling(GENERATOR, slope, 30)
  grow = jax.jit(lambda made, own: (made.grown(own), made(own)))
  (tree, spent, record), x = grow(made, keys.per_sample(jax.random.key(0), 3))
  parent, value, visits = (np.asarray(part) for part in (tree.parent, tree.value, tree.visits))
  leaf = np.arange(parent.shape[1]) % 6 == 5
  for b in range(3):
    nodes = np.unique(parent[b][parent[b] >= 0])
    for node in nodes:
      child = value[b][parent[b] == node]
      assert value[b, node] == pytest.approx(np.log(np.mean(np.exp(child))), abs=1e-4)
    made_here = parent[b] >= 0
    assert spent[-1, b] == (made_here & ~leaf).sum() and visits[b, -1] == 30
    assert record[-1, b] == value[b][made_here & leaf].max() and not leaf[nodes[:-1]].any()
    assert 0.5 * x[b, 0] in value[b][made_here & leaf]
  assert (np.diff(record, axis=0) >= 0).all() and (spent[0] == 5).all() and (spent[-1] < 150).all()


@pytest.mark.slow
def test_more_rollouts_come_nearer_to_the_tilted_law():
  """Specified .116/.083/.049 at 100/400/1600 rollouts, without the .02 that 500 walks have of their own."""
  few, some, many = (distance(walked(tree_sampling(GENERATOR, slope, n), 6, 500)[0]) for n in (100, 400, 1600))
  assert few > many and some > many and many <= 0.08 + 0.02 and few <= 0.18


def high(x, cond):
  return x[:, 0]


@pytest.mark.slow
def test_search_beats_the_best_of_as_many():
  """At equal evaluations, the mean over 50 samples; DTS* of 60 rollouts."""
  made = tree_search(GENERATOR, high, 60, explore=0.5)
  _, spent, record = walked(made, 50, 1)
  equal = int(np.ceil(np.asarray(spent[-1]).mean() / 5))
  own = keys.per_sample(jax.random.key(1), 50)
  many = jax.jit(lambda g: high(g(own), None))(best_of(GENERATOR, high, equal))
  assert np.mean(record[-1]) >= np.mean(many) - 0.02


def test_refusals():
  for options, message in (
    (dict(scale=0.0), 'scale: got 0.0; allowed'),
    (dict(power=1.5), 'power: got 1.5; allowed'),
    (dict(rollouts=0), 'rollouts: got 0; allowed'),
  ):
    with pytest.raises(InputError, match=message):
      tree_sampling(GENERATOR, slope, **({'rollouts': 2} | options))
