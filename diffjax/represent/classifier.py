"""Diffusion Classifier: the class under which a denoiser predicts the noise best."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys, labels
from diffjax.errors import InputError
from diffjax.noise_levels import at, on_host, times_of
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.schedules import vp_linear

__all__ = ['Accuracy', 'Classified', 'accuracy', 'diffusion_classifier']

WEIGHTS = ('eps', 'elbo')
ENDS = (0.02, 0.98)  # of the grid of times, those of the paper's process


class Classified(NamedTuple):
  """The class (B,), the mean error of every class (B, C), +inf where it was given up, and evaluations an example."""

  label: Array
  errors: Array
  nfe: int


def diffusion_classifier(
  denoise: Denoise,
  x0: Array,
  key: Array,
  classes: int,
  *,
  stages: tuple[tuple[int, int], ...] = ((128, 1),),
  weight: str = 'eps',
  power: float = 2.0,
) -> Classified:
  """The class c of least E |eps - eps_hat(x_t, t, c)|^power over times and noise that all classes share.

  'eps' weighs all times alike, as the paper does. 'elbo' weighs by -lam'(t): then minus the error is log p(x0 | c) up
  to a constant of x0, at a greater variance. Times are even in that of `vp_linear` and, on other processes, the times
  of the same noise levels. Stages give up classes early: of ((16, 3), (64, 1)) the three best after 16 draws get 48
  more.

  arXiv:2303.16203

  Args:
    denoise: a conditional denoiser, unguided.
    x0: (B, ...), one array.
    key: a typed key, or one an example.
    classes: the labels 0 .. classes - 1 are compared.
    stages: pairs (draws in all, classes kept), draws rising and classes falling.
    weight: 'eps' or 'elbo'.
    power: 2, or 1 for the absolute error.

  Raises:
    InputError: another weight, fewer than two classes, or stages that do not rise and fall.
  """
  if weight not in WEIGHTS:
    raise InputError(f'weight: got {weight!r}; allowed: {", ".join(WEIGHTS)}')
  if classes < 2:
    raise InputError(f'classes: got {classes}; allowed: at least 2')
  draws, kept = (np.array(column) for column in zip((0, classes), *stages, strict=True))
  if (np.diff(draws) < 1).any() or (np.diff(kept) >= 0).any() or kept[-1] < 1:
    raise InputError(f'stages: got {stages} of {classes} classes; allowed: pairs (draws, classes kept), draws rising '
                     'and classes falling')  # fmt: skip
  labels.check_for(denoise, np.arange(classes))
  own, exponent = keys.per_sample(key, len(x0)), jnp.asarray(power, float)
  alive = jnp.broadcast_to(jnp.arange(classes, dtype=jnp.int32), (len(x0), classes))
  total, errors, nfe = jnp.zeros(alive.shape), jnp.full(alive.shape, jnp.inf), 0
  for stage, (n, keep) in enumerate(zip(np.diff(draws), kept[1:], strict=True)):
    times = _times(denoise.process, int(n), weight)
    total = total + _errors(denoise, x0, keys.fold(own, stage), alive, times, exponent)
    nfe += int(n) * alive.shape[1]
    mean = total / draws[stage + 1]
    errors = jnp.full(errors.shape, jnp.inf).at[jnp.arange(len(x0))[:, None], alive].set(mean)
    best = jnp.argsort(mean, axis=1)[:, :keep]
    alive, total = (jnp.take_along_axis(a, best, 1) for a in (alive, total))
  return Classified(alive[:, 0], errors, nfe)


class Accuracy(NamedTuple):
  """The share of n examples whose label was found, its standard error, and evaluations an example."""

  accuracy: float
  se: float
  n: int
  nfe: int


def accuracy(
  denoise: Denoise,
  x: Any,
  known: Any,
  key: Array,
  classes: int,
  *,
  batch: int = 128,
  place: Callable[[Any], Any] = jnp.asarray,
  fetch: Callable[[Any], np.ndarray] = np.asarray,
  **options: Any,
) -> Accuracy:
  """How often `diffusion_classifier` finds the label; example k depends on its own key alone, one program a stage.

  Args:
    denoise: as there.
    x: (n, ...), on the host.
    known: the labels (n,).
    key: a typed key.
    classes: how many.
    batch: examples a call.
    place: puts a batch onto devices.
    fetch: a result (batch,) on the host.
    options: `stages`, `weight`, `power` of `diffusion_classifier`.

  Raises:
    InputError: as there.
  """
  right, nfe, n = [], 0, len(x)
  for start in range(0, n, batch):
    rows = np.minimum(np.arange(start, start + batch), n - 1)
    own = place(keys.numbered(key, jnp.asarray(rows)))
    found = diffusion_classifier(denoise, place(np.asarray(x)[rows]), own, classes, **options)
    right.append((fetch(found.label) == np.asarray(known)[rows])[: min(batch, n - start)])
    nfe = found.nfe
  share = float(np.concatenate(right).mean())
  return Accuracy(share, float(np.sqrt(share * (1 - share) / n)), n, nfe)


def _times(process: Process, n: int, weight: str) -> tuple[Array, Array]:
  """Times (n,) of this process and their weights: midpoints of even parts of the paper's time."""
  with jax.ensure_compile_time_eval():  # also within a trace
    paper = vp_linear()
  u = ENDS[0] + (ENDS[1] - ENDS[0]) * (np.arange(n) + 0.5) / n
  w = np.ones(n) if weight == 'eps' else (ENDS[1] - ENDS[0]) * on_host(_rate, paper, u)
  return jnp.asarray(times_of(process, at(paper, u)[2]), float), jnp.asarray(w, float)


def _rate(process: Process, t: Array) -> Array:
  """-lam' = g^2 / (2 sigma^2)."""
  return process.g2(t) / (2 * process.schedule(t)[1] ** 2)


@jax.jit
def _errors(denoise, x0, key, alive, times, power):
  """The summed errors (B, k) of the classes `alive` (B, k) at these times, one noise an example and time."""
  size, k = alive.shape
  wide = lambda leaf: jnp.repeat(leaf, k, axis=0)  # noqa: E731

  def one(total: Array, drawn: tuple) -> tuple[Array, None]:
    i, t, w = drawn
    eps = keys.normal(keys.fold(key, i), x0)
    x = denoise.process.perturb(x0, eps, t)
    pred = denoise(wide(x), t, alive.reshape(-1))
    off = jnp.abs((pred.eps - wide(eps)).astype(jnp.float32)).reshape(size, k, -1)
    return total + w * jnp.sum(off**power, -1), None

  return jax.lax.scan(one, jnp.zeros((size, k)), (jnp.arange(len(times[0])), *times))[0]
