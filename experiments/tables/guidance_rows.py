"""What the table of guidance measures: a labelled mixture, two models of it, guidances at one cost, figures."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffjax import exact, guidance, keys, schedules, solvers
from diffjax.exact import Mixture
from diffjax.metrics.transport import sliced_wasserstein
from diffjax.solvers import grids, pair_form, sample

__all__ = ['BUDGET', 'GUIDANCES', 'MODELS', 'SCALE', 'drawn', 'figures', 'learned', 'measured', 'product', 'target']

BUDGET, SCALE, COUNT = 96, 2.0, 6000  # evaluations a sample, the weight of every guidance that has one, samples
WEIGHTS = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
MEANS = np.array([[-2, 0], [-0.8, -1], [2, 0], [0.8, -1], [0, 2.5], [0, 1]])
LABELS = np.array([0, 0, 1, 1, 2, 2])
VARIANCE, CLASSES = 0.5, 3
MIXING, SMOOTHED = 0.1, 0.1  # of the model that errs
PROCESS = schedules.cosine()


def target() -> Mixture:
  """Three overlapping classes of two components each, in the plane."""
  return exact.mixture(WEIGHTS, MEANS, [VARIANCE] * len(WEIGHTS), LABELS)


def learned(mixing: float, smoothed: float) -> Mixture:
  """What a model has learned that saw a share of labels drawn anew, and data with noise of this variance.

  Of class c it is (1 - mixing) p_c + mixing p_u, so the law without a label is the target's, but for the smoothing.
  """
  prior = np.bincount(LABELS, WEIGHTS)
  own = np.where(LABELS == np.arange(CLASSES)[:, None], WEIGHTS / prior[:, None], 0)
  of_class = (1 - mixing) * own + mixing * WEIGHTS
  there = of_class.ravel() > 0
  weights, means = (prior[:, None] * of_class).ravel(), np.tile(MEANS, (CLASSES, 1))
  labels = np.repeat(np.arange(CLASSES), len(WEIGHTS))
  return exact.mixture(weights[there], means[there], [VARIANCE + smoothed] * int(there.sum()), labels[there])


MODELS = {'exact': (0.0, 0.0), 'errs': (MIXING, SMOOTHED)}


def class_logits(x: jax.Array, t: jax.Array | float = 0.0) -> jax.Array:
  """The log of p(x, c) of clean data, (B, C): the Bayes classifier's."""
  law = jnp.log(WEIGHTS) - jnp.sum((x[:, None] - jnp.asarray(MEANS)) ** 2, -1) / (2 * VARIANCE)
  return jnp.stack([jax.nn.logsumexp(law[:, LABELS == c], axis=1) for c in range(CLASSES)], 1)


def noisy_class(model: Mixture, x: jax.Array, t: jax.Array, cond: jax.Array) -> jax.Array:
  """The log of p(c | x_t) of a model, but for a constant."""
  level = PROCESS.schedule(t)
  return model.log_density(x, *level, cond) - model.log_density(x, *level)


class Row(NamedTuple):
  """A guidance of a model and its worse version, and the solver that it asks for."""

  make: Callable[[Any, Any], Any]
  solver: Callable = solvers.ddim


GUIDANCES: dict[str, Row] = {
  'none': Row(lambda d, worse: d),
  'none, ancestral': Row(lambda d, worse: d, solvers.ancestral),
  'cfg': Row(lambda d, worse: guidance.cfg(d, SCALE)),
  'cfg, ancestral': Row(lambda d, worse: guidance.cfg(d, SCALE), solvers.ancestral),
  'interval': Row(lambda d, worse: guidance.cfg(d, SCALE, interval=(0.2, 0.7))),
  'rescale': Row(lambda d, worse: guidance.cfg_rescale(d, SCALE)),
  'apg': Row(lambda d, worse: guidance.apg(d, SCALE)),
  'cfg_zero': Row(lambda d, worse: guidance.cfg_zero(d, SCALE)),
  'cfgpp': Row(lambda d, worse: guidance.cfgpp(d, 0.6), lambda *of: pair_form(solvers.ddim(*of), PROCESS)),
  'autoguidance': Row(lambda d, worse: guidance.autoguidance(d, worse, SCALE)),
  'rectified_gradient': Row(lambda d, worse: guidance.rectified_gradient(d, SCALE)),
  'feedback': Row(lambda d, worse: guidance.feedback(d, MIXING), solvers.ancestral),
  'gradient_free': Row(lambda d, worse: guidance.gradient_free(d, Partial(class_logits), SCALE)),
  'classifier': Row(lambda d, worse: guidance.classifier_guidance(d, Partial(noisy_class, d.target), SCALE - 1)),
}


def laid(name: str, model: str, budget: int) -> tuple[Any, Any, int]:
  """The guided denoiser, the most steps of its solver that cost no more than the budget, and their cost."""
  mixing, smoothed = MODELS[model]
  denoise = learned(mixing, smoothed).denoiser(PROCESS)
  worse = learned(mixing + 2 * MIXING, smoothed + 2 * SMOOTHED).denoiser(PROCESS)
  row = GUIDANCES[name]
  made = row.make(denoise, worse)

  def price(steps: int) -> int:
    return sum(guidance.cost(made, t) for t in grids.uniform(PROCESS, steps)[:-1])

  steps = max(n for n in range(1, budget + 1) if price(n) <= budget)
  return made, row.solver(PROCESS, grids.uniform(PROCESS, steps)), price(steps)


def drawn(name: str, model: str, *, count: int = COUNT, budget: int = BUDGET) -> tuple[np.ndarray, int, int]:
  """Samples of the classes in turn, the evaluations of one, and the steps."""
  made, solver, paid = laid(name, model, budget)
  x = PROCESS.schedule(PROCESS.t_max)[1] * jax.random.normal(jax.random.key(1), (count, 2))
  out = sample(made, solver, x, jax.random.key(2), cond=jnp.arange(count) % CLASSES)
  return np.asarray(out, float), paid, len(solver.rows.t)


@cache
def conditional(count: int, seed: int = 3) -> np.ndarray:
  """Exact draws of the classes in turn."""
  return np.asarray(target().sample(keys.per_sample(jax.random.key(seed), count), jnp.arange(count) % CLASSES), float)


@cache
def product(count: int, scale: float = SCALE) -> np.ndarray:
  """Exact draws of p_c^scale p_u^(1 - scale), the classes in turn: those of p_c kept with p(c | x)^(scale - 1)."""
  x = conditional(20 * count, seed=4)
  c = np.arange(len(x)) % CLASSES
  chance = np.asarray(jax.nn.softmax(class_logits(jnp.asarray(x)), -1))[np.arange(len(x)), c] ** (scale - 1)
  kept = np.random.default_rng(5).random(len(x)) < chance
  classes = [x[kept & (c == k)][: count // CLASSES] for k in range(CLASSES)]
  return np.stack(classes, 1).reshape(-1, 2)


def figures(x: np.ndarray) -> dict[str, float]:
  """The figures of samples (n, 2), classes in turn, n divisible by their number.

  accuracy: share that the Bayes classifier gives its class; tv: total variation of the shares of the nearest component
  within a class, the mean over classes; variance: of a class over the exact one's; sw, product: sliced Wasserstein
  distance to as many exact draws of the conditional law, and of p_c^scale p_u^(1 - scale).
  """
  n, cond = len(x), np.arange(len(x)) % CLASSES
  found: dict[str, list[float]] = dict(tv=[], variance=[], sw=[], product=[])
  truth, powered = conditional(n), product(n)
  for c in range(CLASSES):
    own, right = x[cond == c], truth[cond == c]
    shares = [np.bincount(_nearest(of), minlength=len(MEANS)) / len(of) for of in (own, conditional(30000)[c::CLASSES])]
    found['tv'].append(float(np.abs(shares[0] - shares[1]).sum() / 2))
    part = LABELS == c
    exactly = exact.mixture(WEIGHTS[part], MEANS[part], [VARIANCE] * int(part.sum())).covariance()
    found['variance'].append(float(own.var(0).sum() / np.trace(exactly)))
    found['sw'].append(sliced_wasserstein(right, own, 64))
    found['product'].append(sliced_wasserstein(powered[c::CLASSES], own, 64))
  told = np.argmax(np.asarray(class_logits(jnp.asarray(x))), 1)
  return dict(accuracy=float(np.mean(told == cond)), **{name: float(np.mean(value)) for name, value in found.items()})


def _nearest(x: np.ndarray) -> np.ndarray:
  return np.argmin(((x[:, None] - MEANS) ** 2).sum(-1), 1)


def measured(name: str, model: str, *, count: int = COUNT, budget: int = BUDGET) -> dict[str, float]:
  """The figures of a guidance under a model, with the evaluations of a sample and the steps."""
  x, paid, steps = drawn(name, model, count=count, budget=budget)
  return dict(**figures(x), evaluations=paid, steps=steps)
