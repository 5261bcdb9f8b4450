"""Experts by time: classifiers of noisy data, each for its own range of noise levels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Data, Params
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.pytree import PyTree

__all__ = ['experts', 'log_prob_of']


def experts(logits: Callable, params: Params, t_max: Any) -> 'Experts':
  """PPAP: one classifier out of several copies of a network, expert k at times of [k, k + 1) t_max / N.

  arXiv:2212.05973

  Guide with it by `classifier_guidance(denoise, log_prob_of(experts(...)))`; the recipe `classifier` trains them, by
  labels, or without any where a classifier of clean data is its teacher and its data are samples. One expert is
  evaluated where all samples are at times of the same one, as in sampling; else each sample's own.

  Args:
    logits: (params of one, x, t (B,)) -> (B, C).
    params: of all of them, stacked on a first axis of N.
    t_max: the end of time.

  Raises:
    InputError: leaves that are not stacked alike.
  """
  counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
  if len(counts) != 1 or counts == {()}:
    raise InputError(
      f'params: got leaves with first axes {sorted(counts)}; allowed: one number of experts, on the first'
    )
  (count,) = counts.pop()
  return Experts(as_scale(logits), params, jnp.arange(1, count) * jnp.asarray(t_max, float) / count)


class Experts(PyTree):
  """Made by `experts`: (x, t) -> logits; `edges` (N - 1,) are the times between their ranges."""

  logits: Any
  params: Params
  edges: Array

  def __call__(self, x: Data, t: Array) -> Array:
    """The logits (B, C) of the experts of these times, () or (B,)."""
    size = jax.tree.leaves(x)[0].shape[0]
    t = jnp.broadcast_to(jnp.asarray(t), (size,))
    k = jnp.searchsorted(self.edges, t, side='right')

    def of(k: Array) -> Any:
      return jax.tree.map(lambda leaf: leaf[k], self.params)

    def together(x: Data, t: Array) -> Array:
      return self.logits(of(k[0]), x, t)

    def apart(x: Data, t: Array) -> Array:
      one = lambda k, x, t: self.logits(of(k), jax.tree.map(lambda leaf: leaf[None], x), t[None])[0]  # noqa: E731
      return jax.vmap(one)(k, x, t)

    return jax.lax.cond(jnp.all(k == k[0]), together, apart, x, t)


def log_prob_of(logits: Callable) -> Callable:
  """The log-probability (x, t, cond) -> (B,) of the label, by logits (x, t) -> (B, C); for `classifier_guidance`."""
  return jax.tree_util.Partial(_log_prob, as_scale(logits))


def _log_prob(logits: Callable, x: Data, t: Array, cond: Any) -> Array:
  labels = cond['label'] if isinstance(cond, dict) else cond
  return jnp.take_along_axis(jax.nn.log_softmax(logits(x, t), -1), labels[:, None], 1)[:, 0]
