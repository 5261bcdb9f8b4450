"""Diffusion tree sampling and search: rollouts grow a tree, and what they earn guides those after them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.methods.generator import Solved
from diffjax.process import expand
from diffjax.solvers.resampling import pick
from diffjax.steering.noise_search import _count
from diffjax.steering.stepping import Stepping, check

__all__ = ['Tree', 'tree_sampling', 'tree_search']

LEAST = -1e30  # the log-weight of a child whose reward was no number: last, but a child


def tree_sampling(
  generator: Solved, reward: Callable, rollouts: int, *, scale: float = 1.0, width: float = 1.0, power: float = 0.5
) -> 'Trees':
  """Diffusion tree sampling: towards p(x0) exp(scale reward(x0)), the values on the way learned from rollouts.

  One tree a sample; the root's children are first points, and a node at row i has children at row i + 1. A rollout
  walks down, each child chosen with weight exp(scale v), to a node with fewer than width n^power children, n its
  visits; there a new child is drawn, and from it a path to the data, all of whose states become nodes. Then the values
  of the path are renewed from below:

      v(x0) = reward(x0),   v(x) = (1 / scale) log mean over children exp(scale v(child))

  The sample is a fresh walk on the final tree, which costs nothing; the rollouts themselves are nearer to the prior.
  A new node costs one evaluation, one at the data none.   arXiv:2506.20701

  Exact as rollouts grow in number, but slowly where the reward is rare: a value rests on few children, visits a child
  grow as n^(1 - power). `power` above .5 is slower still.

  Raises:
    InputError: not a denoiser under a stochastic solver, a count below 1, scale, width or power out of range.
  """
  return _trees(generator, reward, rollouts, scale, width, power, greedy=False, explore=0.0)


def tree_search(
  generator: Solved, reward: Callable, rollouts: int, *, scale: float = 1.0, width: float = 1.0, power: float = 0.5,
  explore: float = 0.0,
) -> 'Trees':  # fmt: skip
  """Diffusion tree search, DTS*: the same tree, walked to the child of the highest value; the best data found.

  A child's value may have `explore` sqrt(log n / n_child) added (UCB).   arXiv:2506.20701
  """
  return _trees(generator, reward, rollouts, scale, width, power, greedy=True, explore=explore)


def _trees(
  generator: Any,
  reward: Callable,
  rollouts: int,
  scale: float,
  width: float,
  power: float,
  greedy: bool,
  explore: float,
) -> 'Trees':
  for field, value in (('scale', scale), ('width', width), ('power', power)):
    if not value > 0:
      raise InputError(f'{field}: got {value}; allowed: a positive number')
  if power > 1:
    raise InputError(f'power: got {power}; allowed: at most 1')
  numbers = (jnp.asarray(v, float) for v in (scale, width, power, explore))
  most = math.ceil(width * _count('rollouts', rollouts) ** power) + 1  # children of a node, and one place to spare
  return Trees(check(generator), as_scale(reward), *numbers, rollouts=rollouts, greedy=greedy, most=most)


class Tree(NamedTuple):
  """The trees of B samples; node l + r depth is what rollout r made at row l, and the root is the last of N.

  Attributes:
    parent: (B, N) int32, -1 of the root and of what was never made.
    children: (B, N, M) int32, -1 where there are fewer than the most that a node can have.
    value: (B, N), the soft value; the reward of a leaf.
    visits: (B, N) int32.
    state: of the solver, (B, N, ...).
    pred: the prediction there.
  """

  parent: Array
  children: Array
  value: Array
  visits: Array
  state: Any
  pred: Any


class Trees(Stepping):
  """Made by `tree_sampling` and `tree_search`."""

  scale: Array
  width: Array
  power: Array
  explore: Array
  rollouts: int = struct.field(pytree_node=False, kw_only=True)
  greedy: bool = struct.field(pytree_node=False, kw_only=True)
  most: int = struct.field(pytree_node=False, kw_only=True)

  @property
  def depth(self) -> int:
    """Nodes of a path: a first point, and one after every row."""
    return self.rows + 1

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample at most: every rollout from the root. `grown` tells how many they were."""
    return self.rollouts * self.rows

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample at most."""
    return self.rollouts * self.generator.cost

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key: a walk on the tree, or the best data found."""
    tree, *_ = self.grown(key_batch, cond)
    return self.best(tree) if self.greedy else self.walk(tree, keys.fold(key_batch, 11))

  def best(self, tree: Tree) -> Data:
    """The data of the highest reward, (B, ...)."""
    leaves = jnp.arange(self.rollouts) * self.depth + self.rows
    value = jnp.where(tree.parent[:, leaves] >= 0, tree.value[:, leaves], -jnp.inf)
    found = _taken(tree.state, leaves[jnp.argmax(value, 1)])
    alive = value.max(1) > -jnp.inf
    x = self.generator.solver.output(found)
    return jax.tree.map(lambda leaf: jnp.where(expand(alive, leaf), leaf, jnp.nan), x)

  def walk(self, tree: Tree, key_batch: KeyBatch) -> Data:
    """One walk from the root to the data a key, each child with weight exp(scale v), (B, ...)."""

    def one(tree: Tree, key: Array) -> Array:
      def down(level: Array, node: Array) -> Array:
        child = tree.children[node]
        logits = jnp.where(child >= 0, jnp.maximum(self.scale * tree.value[child], LEAST), -jnp.inf)
        return child[drawn(jax.random.fold_in(key, level), logits)]

      return jax.lax.fori_loop(0, self.depth, down, jnp.asarray(self.rollouts * self.depth))

    leaf = jax.vmap(one)(tree._replace(state=(), pred=()), key_batch)
    return self.generator.solver.output(_taken(tree.state, leaf))

  def grown(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[Tree, Array, Array]:
    """The trees, the evaluations made up to each rollout and the best reward so far, (rollouts, B) each."""
    begun = lambda key_batch: self.begun(key_batch)[0]  # noqa: E731
    shapes = jax.eval_shape(lambda k: (begun(k), self.asked_at(begun(k), jnp.zeros(()), cond)[0]), key_batch)
    size, nodes = key_batch.shape[0], self.rollouts * self.depth + 1
    blank = jax.tree.map(lambda s: jnp.zeros((s.shape[0], nodes, *s.shape[1:]), s.dtype), shapes)
    none = jnp.full((size, nodes), -1, jnp.int32)
    children = jnp.full((size, nodes, self.most), -1, jnp.int32)
    tree = Tree(none, children, jnp.zeros((size, nodes)), jnp.zeros_like(none), *blank)

    def rollout(carry: tuple, r: Array) -> tuple[tuple, tuple]:
      tree, spent, record = carry
      own = keys.fold(keys.fold(key_batch, 13), r)
      light = tree._replace(state=(), pred=())
      path, level = jax.vmap(self._selected)(light, keys.fold(own, 0))
      tree, path = self._extended(tree, path, level, r, keys.fold(own, 1), cond)
      tree = self._backed(tree, path)
      spent = spent + jnp.maximum(self.rows - level, 0)
      record = jnp.maximum(record, _at(tree.value, path[:, -1]))
      return (tree, spent, record), (spent, record)

    carry = (tree, jnp.zeros(size, jnp.int32), jnp.full(size, -jnp.inf))
    (tree, *_), (spent, record) = jax.lax.scan(rollout, carry, jnp.arange(self.rollouts))
    return tree, spent, record

  def _selected(self, tree: Tree, key: Array) -> tuple[Array, Array]:
    """The nodes of one walk, root first (depth + 1,), and the row at which new ones begin; `depth` for none."""
    root = self.rollouts * self.depth

    def down(carry: tuple, level: Array) -> tuple[tuple, tuple]:
      node, stopped = carry
      child, n = tree.children[node], tree.visits[node]
      stopped = stopped | (jnp.sum(child >= 0) < self.width * (n + 1.0) ** self.power)
      bonus = self.explore * jnp.sqrt(jnp.log(n + 1.0) / jnp.maximum(tree.visits[child], 1))
      logits = jnp.where(child >= 0, jnp.maximum(self.scale * (tree.value[child] + bonus), LEAST), -jnp.inf)
      chosen = child[jnp.argmax(logits) if self.greedy else drawn(jax.random.fold_in(key, level), logits)]
      node = jnp.where(stopped, node, chosen)
      return (node, stopped), (node, stopped)

    _, (nodes, stopped) = jax.lax.scan(down, (jnp.asarray(root), jnp.asarray(False)), jnp.arange(self.depth))
    return jnp.concatenate([jnp.asarray([root]), nodes]), jnp.sum(~stopped)

  def _extended(
    self, tree: Tree, path: Array, level: Array, r: Array, key_batch: KeyBatch, cond: Cond
  ) -> tuple[Tree, Array]:
    """Draws what is new of a path, row by row: the samples whose walk came further stand by."""
    first, _ = self.begun(keys.fold(key_batch, self.depth))
    rows = jnp.arange(len(level))

    def row(carry: tuple, i: Array) -> tuple[tuple, None]:
      tree, path = carry
      new, slot = i >= level, r * self.depth + i
      before = path[:, i]
      after = self.stepped(
        _taken(tree.state, before), _taken(tree.pred, before), jnp.full(len(level), jnp.maximum(i - 1, 0)),
        keys.fold(key_batch, i),
      )  # fmt: skip
      state = jax.tree.map(lambda a, b: jnp.where(i == 0, a, b), first, after)
      at = jnp.full(len(level), i)
      blank = jax.tree.map(lambda leaf: leaf[:, 0] * 0, tree.pred)
      pred, value = jax.lax.cond(
        jnp.any(new), lambda: self.judged(state, at, cond), lambda: (blank, jnp.zeros(len(level)))
      )

      def put(leaf: Array, values: Array) -> Array:
        return leaf.at[rows, slot].set(jnp.where(expand(new, values), values, leaf[rows, slot]))

      place = jnp.sum(tree.children[rows, before] >= 0, 1)
      known = tree.children[rows, before, place]
      children = tree.children.at[rows, before, place].set(jnp.where(new, slot, known).astype(jnp.int32))
      tree = Tree(
        put(tree.parent, before.astype(jnp.int32)), children, put(tree.value, value), tree.visits,
        jax.tree.map(put, tree.state, state), jax.tree.map(put, tree.pred, pred),
      )  # fmt: skip
      path = path.at[:, i + 1].set(jnp.where(new, slot, path[:, i + 1]))
      return (tree, path), None

    (tree, path), _ = jax.lax.scan(row, (tree, path), jnp.arange(self.depth))
    return tree, path

  def _backed(self, tree: Tree, path: Array) -> Tree:
    """Renews the values of a path from below, and counts its visits."""
    rows = jnp.arange(len(path))

    def up(value: Array, node: Array) -> tuple[Array, None]:
      child = tree.children[rows, node]
      each = jnp.where(child >= 0, self.scale * value[rows[:, None], child], -jnp.inf)
      return value.at[rows, node].set((jax.nn.logsumexp(each, 1) - jnp.log(jnp.sum(child >= 0, 1))) / self.scale), None

    value, _ = jax.lax.scan(up, tree.value, path.T[:-1][::-1])
    return tree._replace(value=value, visits=tree.visits.at[rows[:, None], path].add(1))


def drawn(key: Array, logits: Array) -> Array:
  """One place of (N,), by its weight, from one uniform draw."""
  return pick(jax.random.uniform(key)[None], logits[None])[0]


_at = partial(jax.vmap, in_axes=(0, 0))(lambda leaf, i: leaf[i])


def _taken(tree: Any, nodes: Array) -> Any:
  """The nodes (B,) of leaves (B, N, ...)."""
  return jax.tree.map(lambda leaf: _at(leaf, nodes), tree)
