"""Bits per dimension of a set of examples, whose values are spread over their bins where they are quantised."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import divergence as traces
from diffjax import finite, keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.likelihood.flow import log_density
from diffjax.prediction import Denoise

__all__ = ['Bits', 'bits_per_dim', 'dequantised', 'in_bits']


class Bits(NamedTuple):
  """Mean bits per dimension of n examples, its standard error, evaluations of an example on average and at most.

  `cost` is the forwards and JVPs of an example on average; `given_up` counts those whose ODE did not reach its end.
  """

  bits: float
  se: float
  n: int
  nfe: float
  nfe_max: int
  cost: float
  given_up: int


def dequantised(key_batch: KeyBatch, x: Array, levels: int) -> Array:
  """Spreads values that lie evenly on [-1, 1] over their bins: x + 2 / (levels - 1) u, u uniform on [-1/2, 1/2).

  The density of the result bounds the mass of x from below: E log p(x + u) <= log P(x) - d log of the bin's width.

  arXiv:1511.01844 sec. 3.1

  Raises:
    InputError: fewer than two levels.
  """
  if levels < 2:
    raise InputError(f'levels: got {levels}; allowed: a whole number of at least 2')
  u = jax.vmap(lambda key, x: jax.random.uniform(key, x.shape, x.dtype, -0.5, 0.5))(key_batch, x)
  return x + 2 / (levels - 1) * u


def in_bits(log_p: Any, dimensions: int, width: float = 1.0) -> Any:
  """Bits per dimension of log-densities in nats: -log p / (d log 2) - log2 width, `width` that of a bin.

  255 steps of 8 bits on [-1, 1] add log2 127.5 = 6.994; the published 7 is that of bins 2 / 256 wide.
  """
  return -np.asarray(log_p) / (dimensions * np.log(2)) - np.log2(width)


def bits_per_dim(
  denoise: Denoise,
  x: Any,
  key: Array,
  cond: Cond = None,
  *,
  levels: int | None = None,
  divergence: str = 'rademacher',
  probes: int = 1,
  data_mean: Any = 0.0,
  data_std: float = 1.0,
  rtol: float = 1e-5,
  atol: float = 1e-5,
  batch: int = 512,
  place: Callable[[Any], Any] = jnp.asarray,
  fetch: Callable[[Any], np.ndarray] = np.asarray,
  progress: Callable[[Iterator], Iterator] = iter,
) -> Bits:
  """Bits per dimension of examples under the probability-flow ODE, an upper bound where values are dequantised.

  Every batch is of one size, the last one padded: one program. Example k depends on its own key alone.

  arXiv:2011.13456 app. D.2

  Args:
    denoise: what is asked for predictions.
    x: (n, ...), on the host.
    key: a typed key.
    cond: the conditions of the examples.
    levels: how many values a component has, evenly on [-1, 1]; None where it is continuous: bits of a density.
    divergence: as of `log_density`, like what else is named there.
    probes: see there.
    data_mean: see there.
    data_std: see there.
    rtol: see there.
    atol: see there.
    batch: examples a call.
    place: puts a batch onto devices.
    fetch: a result (batch,) on the host.
    progress: wraps the iterator over batches.

  Raises:
    InputError: fewer than two examples, or as `log_density` and `dequantised`.
    FloatingPointError: a log-density is not finite.
  """
  if isinstance(x, dict):
    raise InputError(f'x: got modalities {", ".join(x)}; allowed: one array (n, ...)')
  n = len(x)
  if n < 2:
    raise InputError(f'x: got {n} examples; allowed: at least 2')
  parts = []
  for start in progress(range(0, n, batch)):  # type: ignore[arg-type]
    rows = np.minimum(np.arange(start, start + batch), n - 1)
    noise, probe = keys.split(keys.numbered(key, jnp.asarray(rows)), 2)
    points = jnp.asarray(np.asarray(x)[rows])
    points = points if levels is None else dequantised(noise, points, levels)
    own = jax.tree.map(lambda leaf, rows=rows: place(np.asarray(leaf)[rows]), cond)
    found = log_density(
      denoise, place(points), place(probe), own, divergence=divergence, probes=probes, rtol=rtol, atol=atol,
      data_mean=data_mean, data_std=data_std,
    )  # fmt: skip
    kept = min(batch, n - start)
    parts.append([fetch(leaf)[:kept] for leaf in (found.log_p, found.nfe, found.success)])
  log_p, nfe, success = (np.concatenate(column) for column in zip(*parts, strict=True))
  finite.check('log-densities', finite.lost(log_p), 'examples')
  size = int(np.prod(np.shape(x)[1:]))
  bits = in_bits(log_p.astype(np.float64), size, 1.0 if levels is None else 2 / (levels - 1))
  each = 1 + traces.cost(divergence, probes, size)
  return Bits(
    bits=float(bits.mean()),
    se=float(bits.std(ddof=1) / np.sqrt(n)),
    n=n,
    nfe=float(nfe.mean()),
    nfe_max=int(nfe.max()),
    cost=float(nfe.mean() * each),
    given_up=int((~success).sum()),
  )
