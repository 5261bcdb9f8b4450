"""Rows of the theory table on scores: which law explains a learner as it learns, and what a kick changes."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, schedules
from diffjax.exact import gaussian, mixture
from diffjax.represent import candidates, explained, gaussian_response, response
from diffjax.solvers import dpmpp_2m
from experiments.tables.theory_rates import Row

__all__ = ['explained_run', 'learner', 'painters', 'scores']

EXPLAINS, PAINTERS = 'Gaussian score', 'painters'
THREE = mixture([0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)


def learner(sigma, times, n=24, features=600, seed=0, width=2.0):
  """The shares that Gaussian, true mixture and examples explain, (times, 3), of a learner of random features.

  Its denoiser is W phi(x), phi Fourier and linear, under exact gradient flow of E |D - x0|^2 / 2 on n examples and
  Monte-Carlo noise for these times.
  """
  rng = np.random.default_rng(seed)
  data = np.asarray(THREE.sample(keys.per_sample(jax.random.key(seed), n + 600)), np.float64)
  train, held = data[:n], data[n:] + sigma * rng.standard_normal((600, 2))
  frequency, phase = width * rng.standard_normal((2, features)), rng.uniform(0, 2 * np.pi, features)
  scale = np.sqrt(2 / features)
  phi = lambda x: np.concatenate([scale * np.cos(x @ frequency + phase), x, np.ones((len(x), 1))], 1)  # noqa: E731
  clean = np.repeat(train, 400, 0)
  f = phi(clean + sigma * rng.standard_normal(clean.shape))
  rate, axes = np.linalg.eigh(f.T @ f / len(f))
  rate = np.maximum(rate, 1e-12)
  cross, seen = axes.T @ (f.T @ clean) / len(f), phi(held) @ axes
  cov = np.cov(train.T, bias=True)
  laws = [gaussian(train.mean(0), cov), THREE]
  w = -np.sum((held[:, None] - train) ** 2, -1) / (2 * sigma**2)
  w = np.exp(w - w.max(1, keepdims=True))
  predicted = [*(np.asarray(law.predict(jnp.asarray(held, jnp.float32), 1.0, sigma).x0) for law in laws)]
  predicted.append(w @ train / w.sum(1, keepdims=True))
  shares = []
  for time in times:
    own = seen @ ((-np.expm1(-rate * time) / rate)[:, None] * cross)
    total = np.mean(np.sum((own - own.mean(0)) ** 2, 1))
    shares.append([1 - np.mean(np.sum((own - other) ** 2, 1)) / total for other in predicted])
  return np.array(shares)


def learning(times=(1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5, 1e6), seeds=3):
  """A learner passes from the Gaussian over the mixture to the examples, later where there is less noise.

  From time 1 on, when one of them explains .9; at the lesser noise it need not have reached the examples yet.
  """
  rows, last = [], {}
  for sigma in (0.5, 0.2):
    shares = np.mean([learner(sigma, times, seed=seed) for seed in range(seeds)], 0)
    best = np.argmax(shares, 1)
    ordered = bool((np.diff(best) >= 0).all()) and set(best) >= ({0, 1, 2} if sigma == 0.5 else {0, 1})
    last[sigma] = times[int(np.flatnonzero(best < 2)[-1])]
    for k, name in enumerate(('one Gaussian', 'the mixture', 'the examples')):
      first = float(times[int(np.argmax(best == k))]) if (best == k).any() else np.nan
      rows.append(Row(EXPLAINS, f'time from which {name} best explains it, sigma = {sigma}', np.nan, first, ordered,
                      'in this order'))  # fmt: skip
  ratio = last[0.2] / last[0.5]
  return [*rows, Row(EXPLAINS, 'time before the examples do, sigma = .2 over .5', 1.0, ratio, ratio > 1, '> 1')]


def painters():
  """xi_k by one jvp through a solver, and the effect of kicks of sigma_t, which rises with t."""
  process, var = schedules.vp_linear(), np.geomspace(0.01, 10, 20)
  denoise, rows, before = gaussian(np.zeros(20), var).denoiser(process), [], 0.0
  for t in (0.1, 0.3, 0.6, 0.9):
    solver = dpmpp_2m(process, t * np.linspace(1, 0, 401) ** 2)
    _, moved = response(denoise, solver, jnp.zeros((1, 20)), jnp.ones((1, 20)))
    want = np.asarray(gaussian_response(process, var, t))
    off = float(np.abs(moved[0] / want - 1).max())
    effect = float(np.sum(want**2) * process.schedule(jnp.asarray(t))[1] ** 2)
    rows.append(Row(PAINTERS, f'xi_k by a jvp from t = {t}: largest relative error', 0.0, off, off < 2e-3, '.002'))
    rows.append(
      Row(PAINTERS, f'effect of kicks of sigma_t, t = {t}', np.sum(var), effect, effect > before, 'rises to it')
    )
    before = effect
  return rows


def explained_run(workdir, times=(0.9, 0.7, 0.5, 0.3, 0.2, 0.1)):
  """Which law fitted to its training examples explains a run on images, at each time: (t, sigma, Explained)."""
  from diffjax.runs import directory, examples
  from diffjax.runs.experiment import build

  denoise, process, config = directory.load(workdir)
  what = build(config)
  (train, _), (held, _) = examples.arrays(what, 'train'), examples.arrays(what, 'test')
  laws, found = candidates(train, rank=min(16, train[0].size - 1), parts=10), []
  for t in times:
    t = t * float(process.t_max)
    z = jax.random.normal(jax.random.key(0), held.shape)
    x = process.perturb(jnp.asarray(held), z, t)
    found.append((t, float(process.schedule(jnp.asarray(t))[1]), explained(denoise, laws, x, t)))
  return found


def scores():
  """All rows of this page."""
  return [*learning(), *painters()]
