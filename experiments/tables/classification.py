"""Discriminative against generative classification of digits at several training sizes.

    python -m experiments.tables.classification [--sizes=30,100,300,1437] [--steps=1200] [--draws=64]

Every row is trained on the same first examples of the training split, in its own order, and judged on the 360 held-out
digits: logistic regression (discriminative), naive Bayes with Gaussian pixels (generative), both on pixels in [-1, 1],
and the Diffusion Classifier of a class-conditional denoiser (generative), trained by experiments/configs/digits.py's
network for --steps steps. Ng and Jordan's claim: the generative head is ahead where examples are few, the
discriminative where they are many.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np
import optax

from diffjax import keys, kinds, losses, nets, schedules
from diffjax.metrics import digits
from diffjax.prediction import Denoiser
from diffjax.represent import accuracy

__all__ = ['heads', 'main', 'trained']

BATCH = 64


def heads(x: np.ndarray, y: np.ndarray, held: np.ndarray, known: np.ndarray) -> dict[str, float]:
  """The accuracies of logistic regression and of naive Bayes."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.naive_bayes import GaussianNB

  flat, seen = x.reshape(len(x), -1), held.reshape(len(held), -1)
  made = {'logistic': LogisticRegression(max_iter=2000), 'naive Bayes': GaussianNB(var_smoothing=1e-2)}
  return {name: float(np.mean(head.fit(flat, y).predict(seen) == known)) for name, head in made.items()}


def trained(x: np.ndarray, y: np.ndarray, steps: int, net: Any = None, seed: int = 0) -> Denoiser:
  """A class-conditional denoiser of these examples, an average over the last steps."""
  net = net or nets.unet(width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10, dropout=0.1)
  process, kind = schedules.cosine(), kinds.as_kind('v')
  params = net.init(jax.random.key(seed), x[:1], np.zeros(1), y[:1])
  loss = losses.denoising(process, net, kind)
  optimiser = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 2e-3, max(steps // 10, 1), steps))

  @jax.jit
  def step(params, average, state, rows, key):
    own = keys.per_sample(key, BATCH)
    batch = {'x': jax.numpy.asarray(x)[rows], 'cond': jax.numpy.asarray(y)[rows]}
    slope = jax.grad(lambda p: jax.numpy.mean(loss({'student': p}, batch, own)[0]))(params)
    move, state = optimiser.update(slope, state, params)
    params = optax.apply_updates(params, move)
    return params, jax.tree.map(lambda a, p: a + 0.01 * (p - a), average, params), state

  rng, average, state = np.random.default_rng(seed), params, optimiser.init(params)
  for i in range(steps):
    rows = rng.integers(0, len(x), BATCH)
    params, average, state = step(params, average, state, rows, jax.random.fold_in(jax.random.key(seed + 1), i))
  return Denoiser(average, process, kind, 10, net=net)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--sizes', default='30,100,300,1437')
  parser.add_argument('--steps', type=int, default=1200)
  parser.add_argument('--draws', type=int, default=64)
  options = parser.parse_args()
  (x, y), (held, known) = digits.load()
  print('| examples | logistic | naive Bayes | diffusion, all draws | diffusion, in stages | seconds |\n|' + '---|' * 6)
  for size in (int(part) for part in options.sizes.split(',')):
    began = time.perf_counter()
    shown = list(heads(x[:size], y[:size], held, known).values())
    denoise = trained(x[:size], y[:size], options.steps)
    for stages in (((options.draws, 1),), ((max(options.draws // 8, 1), 3), (options.draws, 1))):
      found = accuracy(denoise, held, known, jax.random.key(0), 10, stages=stages, batch=120)
      shown.append(found.accuracy)
    figures = ' | '.join(f'{value:.3f}' for value in shown)
    print(f'| {size} | {figures} | {time.perf_counter() - began:.0f} |', flush=True)


if __name__ == '__main__':
  main()
