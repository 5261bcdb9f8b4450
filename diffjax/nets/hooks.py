"""Hooks of attention: functions (attend, q, k, v, given) that stand in for attend(q, k, v); see `Apply.hooks`.

q (B, N, heads, d); k and v (B, M, heads, d); `given` the arrays of this attention, with a batch axis of B or 1.
"""

import jax.numpy as jnp

__all__ = ['masked', 'extended', 'shifted', 'identity']


def masked(attend, q, k, v, given):
  """Look only where given, boolean and broadcast to (B, heads, N, M), is True."""
  return attend(q, k, v, given)


def extended(attend, q, k, v, given):
  """Look also at further keys and values, given = (keys, values), each (B, L, heads, d)."""
  more = ((jnp.broadcast_to(a, (q.shape[0], *a.shape[1:])).astype(q.dtype)) for a in given)
  return attend(q, *(jnp.concatenate(pair, 1) for pair in zip((k, v), more, strict=True)))


def shifted(attend, q, k, v, given):
  """Add given, broadcast to (B, N, heads, d), to what attention returns."""
  return attend(q, k, v) + given.astype(q.dtype)


def identity(attend, q, k, v, given):
  """Every token sees itself alone: the perturbed branch of perturbed-attention guidance.

  arXiv:2403.17377
  """
  return v
