"""A learned scale of the loss at each noise level, so that all levels count alike whatever the data.

    value = exp(-u) L + u,       u a function of the noise level alone

Its minimiser is u = log E[L | level], where the loss that the network sees is L / E[L].   arXiv:2312.02696 eq. 21

The weights of u lie in the student's tree, under 'uncertainty': they move by the same gradient as the network's, where
a role of their own would take a phase and a second evaluation; and what optimisers, averages, shardings and checkpoints
do for weights is done for them. Networks do not look at them: at sampling they are unused.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax.errors import InputError
from diffjax.nets import Apply
from diffjax.nets.uncertainty import Uncertainty
from diffjax.process import Process

__all__ = ['NAME', 'add_head', 'log_level', 'balanced']

NAME = 'uncertainty'
HEAD = Apply(Uncertainty())


def add_head(params: dict[str, Any], key: Array) -> dict[str, Any]:
  """A student's parameters with a fresh head beside them."""
  return {**params, NAME: HEAD.init(key, jnp.zeros(1), None)}


def log_level(params: dict[str, Any], process: Process, t: Array, role: str = 'student') -> Array:
  """The learned log-uncertainty u at times t (B,), float32.

  u at times t (B,), float32: told -lam / 4, cut off at 5, where sigma / alpha is 5e8.

  Raises:
    InputError: the parameters hold no head.
  """
  if NAME not in params:
    raise InputError(f"roles['{role}']: got no {NAME!r} among {', '.join(sorted(params))}; allowed with "
                     'uncertainty=True: parameters that losses.uncertainty.add_head made')  # fmt: skip
  return jnp.asarray(HEAD(params[NAME], jnp.clip(-process.lam(t) / 4, -5, 5), None))


def balanced(values: Array, u: Array) -> Array:
  """Weighs values by a learned log-uncertainty: exp(-u) values + u."""
  return jnp.exp(-u) * values + u
