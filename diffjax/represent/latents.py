"""The latent code of any generator guided by energies: Langevin dynamics over z of x = G(z)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Denoise
from diffjax.pytree import PyTree
from diffjax.represent.encoder import Code, decode

__all__ = ['Guided', 'Latent', 'guided_codes', 'latent']


class Guided(NamedTuple):
  """Codes (B, ...), their energy U (B,), and the share of accepted steps (B,), 1 without a test."""

  z: Array
  energy: Array
  accepted: Array


def guided_codes(
  generate: Callable,
  energy: Callable,
  z: Array,
  key: Array,
  *,
  scale: Any = 1.0,
  step: float = 0.05,
  steps: int = 200,
  exact: bool = False,
  best: bool = False,
) -> Guided:
  """Draws codes of p(z) e^{-scale E(G(z))}, p standard normal, by Langevin dynamics from z.

      z <- z - (step / 2) grad U + sqrt(step) n,      U(z) = |z|^2 / 2 + scale E(G(z))

  Samples x = G(z) then have the law p_G(x) e^{-scale E(x)}, whichever code G has: noise of an ODE, the noises of a
  stochastic sampler (`latent`), a one-step generator's. On a precision h the variance comes out as 1 / (h (1 - step h /
  4)), and above step h = 4 the chain diverges; `exact` accepts or rejects each step (MALA) and has no such error.

  arXiv:2210.05559 sec. 4

  Args:
    generate: G, (B, ...) -> x; a pytree (`jax.tree_util.Partial`) for arrays that may change.
    energy: E, x -> (B,).
    z: the codes to begin with, (B, ...).
    key: a typed key, or one a sample.
    scale: a number, or one a sample.
    step: the length of a step.
    steps: how many.
    exact: Metropolis' test after each step.
    best: return the code of least U that was met, which is no draw, instead of the last.

  Raises:
    InputError: no step, or one of no length.
  """
  if steps < 1 or not step > 0:
    raise InputError(f'steps, step: got {steps}, {step}; allowed: at least 1, and a positive number')
  own = keys.per_sample(key, len(z))
  return _guided(as_scale(generate), as_scale(energy), z, own, as_scale(scale), as_scale(step), steps, exact, best)


@partial(jax.jit, static_argnames=('steps', 'exact', 'best'))
def _guided(generate, energy, z, key, scale, step, steps, exact, best):
  total = lambda leaf: jnp.sum(leaf.reshape(len(z), -1), -1)  # noqa: E731
  column = lambda v: v.reshape((-1,) + (1,) * (z.ndim - 1))  # noqa: E731

  def sloped(z: Array) -> tuple[Array, Array]:
    def summed(z: Array) -> tuple[Array, Array]:
      each = total(z**2) / 2 + scale * energy(generate(z))
      return jnp.sum(each), each

    (_, each), slope = jax.value_and_grad(summed, has_aux=True)(z)
    return each, slope

  def move(carry: tuple, i: Array) -> tuple[tuple, Array]:
    (z, u, slope), least = carry
    noise, test = keys.split(keys.fold(key, i), 2)
    new = z - step / 2 * slope + jnp.sqrt(step) * keys.normal(noise, z)
    there = (new, *sloped(new))
    taken = jnp.ones(len(z), bool)
    if exact:
      back = total((z - new + step / 2 * there[2]) ** 2) - total((new - z + step / 2 * slope) ** 2)
      taken = jnp.log(keys.uniform(test)) < u - there[1] - back / (2 * step)
      there = jax.tree.map(lambda a, b: jnp.where(taken if a.ndim == 1 else column(taken), a, b), there, (z, u, slope))
    lower = there[1] < least[1]
    least = (jnp.where(column(lower), there[0], least[0]), jnp.where(lower, there[1], least[1]))
    return (there, least), taken

  first = (z, *sloped(z))
  ((z_end, u_end, _), least), taken = jax.lax.scan(move, (first, first[:2]), jnp.arange(steps))
  end = least if best else (z_end, u_end)
  return Guided(*end, jnp.mean(taken.astype(u_end.dtype), 0))


class Latent(PyTree):
  """A sampler as a function of its noise, made by `latent`."""

  denoise: Denoise
  solver: Any
  std: Array
  cond: Cond

  def __call__(self, z: Array) -> Array:
    """The samples (B, ...) of the codes z (B, 1 + rows, ...), of deterministic solvers (B, 1, ...)."""
    start = self.std * z[:, 0]
    return decode(self.denoise, self.solver, Code(start, z[:, 1:], jnp.zeros_like(start)), self.cond)

  def prior(self, key_batch: KeyBatch, shape: tuple[int, ...]) -> Array:
    """Standard normal codes of samples of this shape, one a key."""
    rows = self.solver.rows.t.shape[0] if self.solver.stochastic else 0
    return keys.normal(key_batch, jax.ShapeDtypeStruct((len(key_batch), 1 + rows, *shape), jnp.float32))


def latent(denoise: Denoise, solver: Any, cond: Cond = None, *, std: Any = 0.0) -> Latent:
  """The generator z -> x of a solver, for `guided_codes`: z[:, 0] begins it, the others are the noises of its rows.

  Args:
    denoise: what is asked for predictions.
    solver: a table, deterministic or not.
    cond: of each sample.
    std: the deviation of the data, which samplers begin with, see `Process.start`.
  """
  alpha, sigma = denoise.process.schedule(jnp.asarray(solver.rows.t, float)[0])
  return Latent(denoise, solver, jnp.hypot(alpha * jnp.asarray(std, float), sigma), cond)
