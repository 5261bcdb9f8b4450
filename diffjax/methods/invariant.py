"""InvDiff: a small module beside a frozen, biased model, trained so that no group of examples is denoised worse."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.lax import stop_gradient

from diffjax import nets
from diffjax.contracts import Cond, Data, Memory, Params, Time
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.kinds import Kind
from diffjax.losses.denoising import mean_square, started
from diffjax.losses.times import uniform
from diffjax.methods.generator import Solved, under_solver
from diffjax.methods.parts import Parts, Sampling
from diffjax.prediction import Denoise, Pred, apply_net
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.train.roles import Method, Phase

__all__ = ['group_losses', 'invariant', 'shift_bound']


def invariant(
  parts: Parts,
  *,
  groups: int = 2,
  spread: float = 1.0,
  least: float = 3.0,
  rate: float = 1.0,
  width: int = 64,
) -> Method:
  """InvDiff: learns what a frozen model lacks on the groups of examples that it denoises worst, without their labels.

      eps = eps_base + rate delta          delta the student, 0 at the start

      groups   a network of x0 shares examples out, q(g | x), so that the base's losses differ most:
               max  std_g L_g + least min_g (g's share of the whole loss)
      student  min  mean_g L_g + spread Var_g L_g,     L_g = sum_i q(g | x_i) l_i / sum_i q(g | x_i)

  That bounds the loss under any shift between groups, `shift_bound`. Both move at every step, the groups by the base
  alone. Groups are of a batch, so the loss is of the whole batch. The published code shares examples out by a table
  over the data; here it is a network, and delta is added, not mixed in by 1 - rate, which would shrink the base at the
  start.   arXiv:2412.08480

  Args:
    parts: with a base, a run or a closed form; the student is of `config.net`.
    groups: G, published 2 to 16.
    spread: lambda, published 1.
    least: kappa, published 0 to 5.
    rate: rho.
    width: of the network of groups.

  Raises:
    InputError: no base or one that does not fit, several modalities, fewer than two groups, a number that is negative.
  """
  base = parts.source('base')
  if isinstance(parts.shape, dict):
    raise InputError(f'got invariant for data of shape {parts.shape}; allowed: data of one shape')
  if groups < 2 or min(spread, least) < 0 or not rate > 0:
    raise InputError(f'groups, spread, least, rate: got {groups}, {spread:g}, {least:g}, {rate:g}; allowed: at least 2 '
                     'groups, numbers from 0, and a positive rate')  # fmt: skip
  sharing = nets.mlp(width, 2, groups)

  def denoiser(roles: Mapping[str, Any]) -> Beside:
    frozen = base.denoiser(roles.get('base', ()))
    return Beside(frozen, roles['student'], parts.kind, jnp.asarray(rate, float), net=parts.net)

  def errors(roles: dict[str, Any], batch: Any, key: Array, alone: bool) -> Array:
    x0, eps, t, cond, _ = started(parts.process, uniform(), batch, key)
    made = denoiser({**roles, 'base': stop_gradient(roles.get('base', ()))})
    asked = made.denoise if alone else made
    return mean_square(asked(parts.process.perturb(x0, eps, t), t, cond).eps, eps)

  def shares(roles: dict[str, Any], batch: Any) -> Array:
    x0: Any = widened(batch['x'])
    logits: Any = sharing(roles['groups'], x0.reshape(len(x0), -1), jnp.zeros(len(x0)))
    return jax.nn.softmax(logits)

  def apart(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    error, q = stop_gradient(errors(roles, batch, key, True)), shares(roles, batch)
    share = jnp.sum(q * error[:, None], 0) / jnp.sum(error)
    return -(deviation(group_losses(error, q)) + least * jnp.min(share)), {}

  def together(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    error = errors(roles, batch, key, False)
    of_group = group_losses(error, stop_gradient(shares(roles, batch)))
    value = jnp.mean(of_group) + spread * jnp.var(of_group)
    return value, {'loss': error, 'worst': jnp.full_like(error, jnp.max(of_group))}

  def init(key: Array) -> dict[str, Params]:
    first, second = jax.random.split(jax.random.fold_in(key, 1))
    even: Any = sharing.init(first, jnp.zeros((1, math.prod(parts.shape))), jnp.zeros(1), None)
    leaves, tree = jax.tree.flatten(even)
    own = jax.random.split(second, len(leaves))
    # a network begins at zero, where all groups are alike and no gradient tells them apart
    groups = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, own, strict=True)]
    return {'student': parts.init(key), 'groups': jax.tree.unflatten(tree, groups)}

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, denoiser(roles), sampling)

  return Method(
    phases=(Phase('groups', apart, parts.optimiser()), Phase('student', together, parts.optimiser())),
    averaged=('student',),
    init=init,
    loads=('base',) if base.kind is not None else (),
    denoiser=denoiser,
    generator=generator,
  )


class Beside(PyTree):
  """A frozen denoiser with a network's output times `rate` added to its eps, and the x0 that goes with it."""

  denoise: Denoise
  params: Params
  kind: Kind
  rate: Array
  net: Any = struct.field(pytree_node=False)

  @property
  def process(self) -> Process:
    """The forward process of both."""
    return self.denoise.process

  def cost(self, t: float) -> int:
    """One forward more than the frozen denoiser."""
    inner = getattr(self.denoise, 'cost', None)
    return 1 + (1 if inner is None else inner(t))

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the frozen denoiser does not have."""
    check = getattr(self.denoise, 'check_cond', None)
    if check is not None:
      check(cond, field)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    delta = self.rate * apply_net(self.net, self.params, self.process, self.kind, x, t, cond=cond)
    alpha, sigma = self.process.schedule(jnp.asarray(t))
    back = expand(jnp.where(alpha > 0, sigma / alpha, 0), delta)
    return pred._replace(x0=(pred.x0 - back * delta).astype(x.dtype), eps=(pred.eps + delta).astype(x.dtype))


def group_losses(errors: Array, shares: Array) -> Array:
  """The mean loss (G,) of each group: errors (B,), shares (B, G) of examples in groups."""
  return jnp.sum(shares * errors[:, None], 0) / jnp.maximum(jnp.sum(shares, 0), 1e-6)


def deviation(values: Array) -> Array:
  """Their standard deviation, with a gradient where it is 0."""
  return jnp.sqrt(jnp.var(values) + 1e-12)


def shift_bound(losses: Array, mixture: Array) -> Array:
  """A bound on the loss under any mixture q of groups: mean L + sqrt(G) |q - 1/G| std L.

  sum_g q_g L_g is at most that, and that itself where q - 1/G is a positive multiple of L - mean L; so the mean and the
  variance of the groups' losses bound the worst shift.

  Args:
    losses: L (G,).
    mixture: q (G,), summing to 1.
  """
  groups = losses.shape[0]
  return jnp.mean(losses) + jnp.sqrt(groups) * jnp.linalg.norm(mixture - 1 / groups) * jnp.std(losses)
