"""What `config.sampling.observation` shows of held-out examples, and the figures of what was reconstructed of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import inverse, keys
from diffjax.inverse import Observation
from diffjax.runs.config import ConfigDict, ConfigError, named, refused, registry

__all__ = ['METHODS', 'figures', 'looked', 'observation', 'told']

METHODS = ('dps', 'flowchef', 'flowdps', 'pigdm', 'proximal')  # what `config.sampling.guidance` may name to read it
OPERATORS = ('blur', 'downsample', 'fourier', 'grey', 'mask', 'projection')
NOISES = ('gaussian', 'poisson')
STREAM = 3  # of a sample's key: 0 to 2 are the start's, the solver's and the labels'


def observation(sampling: ConfigDict, shape: Any) -> Observation | None:
  """The operator and noise that the config names, y in the condition; None where it names none.

      observation=dict(name='mask', keep='left', noise=dict(name='gaussian', std=.05))

  Raises:
    ConfigError: a name that is not there, or does not fit the shape; or no posterior method in `sampling.guidance`, or
      one without an observation.
  """
  spec = sampling.observation.to_dict()
  asked = [
    s if isinstance(s, str) else s.get('name') for s in sampling.to_dict()['guidance'] if isinstance(s, str | dict)
  ]
  reads = [name for name in asked if name in METHODS]
  if spec['name'] == 'none':
    if reads:
      raise ConfigError(f'config.sampling.observation: got none with guidance {reads[0]}; allowed with it: '
                        f'{", ".join(OPERATORS)}')  # fmt: skip
    return None
  if not reads:
    raise ConfigError(f'config.sampling.guidance: got none that reads config.sampling.observation = {spec["name"]}; '
                      f'allowed: {", ".join(METHODS)}')  # fmt: skip
  if isinstance(shape, dict):
    raise ConfigError(f'config.sampling.observation: got {spec["name"]} for data of modalities {", ".join(shape)}; '
                      'allowed: data of one shape')  # fmt: skip
  noise = named('sampling.observation.noise', registry(inverse, NOISES), spec.pop('noise', 'gaussian'))
  operator = named('sampling.observation', registry(inverse, OPERATORS), spec, tuple(shape))
  return refused('sampling.observation', inverse.unseen, operator, noise)


def looked(seen: Observation, x: Any, seed: int, ks: Any) -> np.ndarray:
  """What is seen of the examples x of the samples ks: y (n, *out), its noise from the sample's own key."""
  own = keys.fold(keys.numbered(keys.seeded(seed), jnp.asarray(ks, jnp.int32)), STREAM)
  return np.asarray(jax.jit(lambda x, own: seen.noise.draw(own, seen.operator(x)))(np.asarray(x), own))


def told(cond: Any, y: np.ndarray) -> dict[str, Any]:
  """A condition with what was seen beside it."""
  return {**(cond if isinstance(cond, dict) else {'label': cond}), 'observed': y}


def figures(seen: Observation, x: Any, y: Any, draws: np.ndarray, peak: float = 2.0) -> dict[str, Any]:
  """How near reconstructions (n, K, *shape) are to the examples x (n, *shape), and whether they know it.

  PSNR, 10 log10(peak^2 / mean squared error) in decibels, of a draw, of the mean of the K, and of A^+ y, each the mean
  over the examples with its standard error. `coverage` is the share of the numbers of x between the least and the
  greatest of the K; of draws of the true posterior (K - 1) / (K + 1), more where they tie. `misfit` is the root mean
  square of y - A x over the noise's deviation, of a draw: about 1, or less where more numbers are fitted than noise.
  """
  count = draws.shape[1]
  plain = np.asarray(seen.operator.pinv(jnp.asarray(y)))
  few = dict(draw=draws[:, 0], mean=draws.mean(1), pseudo_inverse=plain)
  axes = tuple(range(1, x.ndim))
  psnr = {name: 10 * np.log10(peak**2 / np.maximum(((r - x) ** 2).mean(axes), 1e-12)) for name, r in few.items()}
  inside = (draws.min(1) <= x) & (x <= draws.max(1))
  now = seen.replace(y=jnp.asarray(y))
  miss = np.asarray(now.residual(jnp.asarray(draws[:, 0]))) ** 2 / np.asarray(now.variance)
  return dict(
    psnr={name: dict(value=float(v.mean()), se=float(v.std() / np.sqrt(len(v)))) for name, v in psnr.items()},
    coverage=dict(value=float(inside.mean()), expected=(count - 1) / (count + 1), draws=count),
    misfit=float(np.sqrt(miss.mean())),
    spread=float(draws.std(1).mean()),
  )
