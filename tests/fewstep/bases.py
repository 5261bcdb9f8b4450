"""Runs to be tuned: the exact jumps of a Gaussian, and consistency models of the ring."""

import closed
import jax.numpy as jnp
import numpy as np
import ring

from diffjax import kinds, schedules
from diffjax.fewstep.iterated import iterated
from diffjax.methods import Sampling, Source

KIND = kinds.x0().plain()
EDM = schedules.edm(sigma_min=0.01, sigma_max=10.0)


class Begun(closed.Exact):
  """`closed.Exact` with weights to begin with, those that make it exact."""

  def init(self, key, x, t, cond=None):
    return closed.right()


def exact(process, end, gamma=1.0):
  """The exact jumps as a run."""
  own, jump = ring.parts(closed.target(), process, KIND), closed.jump(process, end)
  return Source(
    'exact', process, (1,), 0, closed.right(), lambda params: None, KIND, jump.net,
    lambda params, asked: iterated(own, jump, params, asked, gamma),
  )  # fmt: skip


def on_exact(**changes):
  """Parts of a run that tunes the exact jumps; on one dimension, by two weights."""
  return ring.parts(
    closed.target(), EDM, KIND, net=Begun(EDM, 0.01), **(dict(base=exact(EDM, 0.01), teacher=None) | changes)
  )


def of_the_ring(method, roles, net):
  """A consistency model of the ring as a run."""
  kind = kinds.edm(ring.STD)
  return Source(
    'ring', EDM, (2,), 0, roles['student'], lambda params: None, kind, net,
    lambda params, asked: method.generator({'student': params}, asked),
  )  # fmt: skip


def sampling(times):
  return Sampling(len(times), lambda: np.append(times, 0.0), lambda: None, lambda denoise: denoise)


def batch(n=32):
  return {'x': jnp.zeros((n, 1))}
