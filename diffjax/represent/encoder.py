"""DPM-Encoder and CycleDiffusion: data as the noise that a stochastic sampler would draw to make them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.prediction import Denoise, Pred, complete
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers import Table, sample
from diffjax.solvers.noise import Noise, fixed, independent

__all__ = ['Code', 'Translated', 'decode', 'encode', 'translate']


class Code(NamedTuple):
  """The code of data: where the sampler begins (B, ...), its noise (B, rows, ...), what its last step leaves (B, ...).

  `rest` is 0 where the last row draws noise; where it does not, data are not quite what any noise draws.
  """

  x: Array
  z: Array
  rest: Array


def encode(denoise: Denoise, solver: Table, x0: Array, key: Array, cond: Cond = None) -> Code:
  """The noise with which a stochastic solver makes x0 of this denoiser.

      x_T ~ q(x_T | x0),    x_s ~ q(x_s | x_t, x0),    z_s = (x_s - mean(x_t)) / std

  q is the solver's own step with the true x0 in the place of the predicted one, so every table that draws noise in each
  row has its encoder: DDIM with eta > 0, DDPM, SDE-DPM-Solver++. `decode` gives x0 back, by construction, and another
  denoiser or condition draws the counterpart of x0. A solver laid out on a grid from below t_max keeps more of x0.

  arXiv:2210.05559

  Args:
    denoise: what is asked for predictions.
    solver: a table that draws noise in each row but the last, which may go without.
    x0: (B, ...), one array.
    key: a typed key, or one a sample.
    cond: the condition of each sample.

  Raises:
    InputError: a row before the last draws no noise, or no typed key.
  """
  check_noisy(solver)
  path: Any = Path(solver, denoise.process)
  return sample(denoise, path, x0, keys.per_sample(key, len(x0)), cond)


def decode(denoise: Denoise, solver: Table, code: Code, cond: Cond = None) -> Array:
  """What the solver draws from a code: the data themselves under the denoiser that encoded them."""
  z = fixed(jnp.moveaxis(code.z, 1, 0))
  return sample(denoise, solver, code.x, jax.random.key(0), cond, z) + code.rest


def translate(
  source: Denoise, target: Denoise, solver: Table, x0: Array, key: Array, cond: Cond = None, target_cond: Cond = None
) -> Array:
  """CycleDiffusion: data encoded by one denoiser and drawn by another, or under another condition.

  Both share the process of the solver.   arXiv:2210.05559

  Args:
    source: the denoiser whose data x0 are.
    target: the one that draws.
    solver: as of `encode`.
    x0: (B, ...).
    key: a typed key, or one a sample.
    cond: what x0 are.
    target_cond: what they shall be.

  Raises:
    InputError: as `encode`.
  """
  return decode(target, solver, encode(source, solver, x0, key, cond), target_cond)


class Translated(PyTree):
  """A generator that draws the counterparts of examples: (keys, {'x', 'source', 'target'}) -> x; see `translate`.

  Attributes:
    source: the denoiser of the examples.
    target: the one that draws.
    solver: of both.
  """

  source: Denoise
  target: Denoise
  solver: Any

  @property
  def nfe(self) -> int:
    """Evaluations of both denoisers."""
    return 2 * self.solver.nfe

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Labels are checked by the two samplers."""

  def __call__(self, key_batch: KeyBatch, cond: Any = None) -> Array:
    """The counterparts of cond['x']."""
    asked = (cond['x'], key_batch, cond.get('source'), cond.get('target'))
    return translate(self.source, self.target, self.solver, *asked)


class Path(PyTree):
  """A solver that begins with data, walks the posterior path and hands out the code; see `encode`.

  Its state is the registers of the wrapped table, those of the same table told the true x0, the data and the code.
  """

  solver: Any
  process: Process
  stochastic = True

  @property
  def rows(self) -> Any:
    return self.solver.rows

  @property
  def skips(self) -> bool:
    return self.solver.skips

  def init(self, x: Array, key: KeyBatch) -> Any:
    n = self.rows.t.shape[0]
    start = self.process.perturb(x, keys.normal(keys.fold(key, n), x), jnp.asarray(self.rows.t)[0])
    z = jnp.zeros((len(x), n, *x.shape[1:]), x.dtype)
    registers = self.solver.init(start, key)
    return dict(model=registers, truth=registers, data=x, code=Code(start, z, jnp.zeros_like(x)))

  def point(self, state: Any) -> Any:
    return self.solver.point(state['model'])

  def update(self, state: Any, pred: Pred, row: Any, key_batch: KeyBatch, noise: Noise = independent) -> Any:
    x0, code = state['data'], state['code']
    mean, std = self.solver.transition(state['model'], pred, row)
    clean = complete(self.process, self.point(state), row.t, x0)
    aim, _ = self.solver.transition(state['truth'], clean, row)
    drawn = noise(key_batch, row, x0)
    last = row.stream == code.z.shape[1] - 1
    reached = jnp.where(last, x0, aim[0] + std[0] * drawn)  # the path ends at the data
    z = jnp.where(std[0] > 0, (reached - mean[0]) / jnp.where(std[0] > 0, std[0], 1), 0)
    after = tuple(m + s * z for m, s in zip(mean, std, strict=True))
    truth = (after[0], *(m + s * drawn for m, s in zip(aim[1:], std[1:], strict=True)))
    rest = jnp.where(last & (std[0] == 0), x0 - after[0], code.rest)
    code = Code(code.x, code.z.at[:, row.stream].set(z), rest)
    return dict(model=after, truth=truth, data=x0, code=code)

  def output(self, state: Any) -> Code:
    return state['code']


def check_noisy(solver: Any) -> None:
  """Raises InputError where a solver draws no noise in a row before its last, or is no table."""
  silent = not isinstance(solver, Table) or not solver.stochastic
  if not silent and not isinstance(solver.rows.weights, Tracer):  # within a program it has been looked at
    silent = not (np.asarray(solver.rows.of_z)[:-1, 0] > 0).all()
  if silent:
    raise InputError('solver: got one with a row without noise; allowed: tables that draw noise in each row but the '
                     'last, such as ddpm or ddim with eta above 0')  # fmt: skip
