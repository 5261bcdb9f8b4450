"""What an evaluation under each guidance costs: the operations of the compiled program, and its time.

    python -m experiments.bench.guidance [--batch=64] [--rounds=9] [--net=dit] [cfg autoguidance ...]

Operations are XLA's count of one guided evaluation of the digits' network, over that of a plain forward of the same
batch; beside it the `cost` that the library counts. `doubled` is a forward of twice the batch, against which
classifier-free guidance is held: bound 1.02. A classifier counts as one forward, but is a small MLP here. Time: medians
over rounds of the ratio to the forward. No run is read, weights are random.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance, nets, schedules
from diffjax.errors import InputError
from diffjax.kinds import as_kind
from diffjax.methods.classifiers import Logits
from diffjax.prediction import Denoiser
from diffjax.train.plan import counted
from experiments.bench.timing import compare

__all__ = ['BOUND', 'GUIDANCES', 'denoiser', 'main', 'operations']

SHAPE, CLASSES, BOUND = (8, 8, 1), 10, 1.02
PROCESS = schedules.cosine()
NETS: dict[str, Callable[[], Any]] = dict(
  dit=lambda: nets.dit(depth=4, width=64, heads=4, classes=CLASSES),
  unet=lambda: nets.unet(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=CLASSES),
)


def denoiser(name: str = 'dit', net: Any = None) -> Denoiser:
  """A network of digits with random weights, that of this name or another."""
  net = net or NETS[name]()
  return Denoiser(_filled(net, CLASSES), PROCESS, as_kind('v'), CLASSES, net=net)


def _filled(net: Any, classes: int) -> Any:
  labels = jnp.zeros(1, jnp.int32) if classes else None
  like = jax.eval_shape(lambda key: net.init(key, jnp.zeros((1, *SHAPE)), jnp.zeros(1), labels), jax.random.key(0))
  draws = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(0.1 * draws.standard_normal(leaf.shape), jnp.float32), like)


def _classifier() -> Any:
  net = nets.mlp(width=128, depth=2, out_channels=CLASSES)
  return jax.tree_util.Partial(Logits(PROCESS, as_kind('v'), net=net), _filled(net, 0))


GUIDANCES: dict[str, Callable[[Any], Any]] = dict(
  forward=lambda d: d,
  cfg=lambda d: guidance.cfg(d, 2.0),
  cfg_rescale=lambda d: guidance.cfg_rescale(d, 2.0),
  apg=lambda d: guidance.apg(d, 2.0),
  cfg_zero=lambda d: guidance.cfg_zero(d, 2.0),
  cfgpp=lambda d: guidance.cfgpp(d, 0.6),
  feedback=lambda d: guidance.feedback(d, 0.1),
  rectified_gradient=lambda d: guidance.rectified_gradient(d, 2.0),
  autoguidance=lambda d: guidance.autoguidance(d, d.replace(params=jax.tree.map(lambda p: 0.9 * p, d.params)), 2.0),
  perturbed_attention=lambda d: guidance.perturbed_attention(d, 2.0),
  perturbed_attention_on_cfg=lambda d: guidance.perturbed_attention(guidance.cfg(d, 2.0), 2.0),
  attentive_eraser=lambda d: guidance.attentive_eraser(d, np.arange(64).reshape(8, 8) < 20),
  classifier_guidance=lambda d: guidance.classifier_guidance(d, guidance.log_prob_of(_classifier()), 2.0),
  elucd=lambda d: guidance.elucd(d, _classifier()),
  gradient_free=lambda d: guidance.gradient_free(d, _classifier(), 2.0),
  universal=lambda d: guidance.tilt(d, jax.tree_util.Partial(_small), at='x0'),
)


def _small(x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
  return -jnp.sum(x**2, axis=(1, 2, 3))


def arguments(batch: int) -> tuple[Any, Any, Any]:
  """The points, the time and the labels of an evaluation."""
  x = jnp.asarray(np.random.default_rng(1).standard_normal((batch, *SHAPE)), jnp.float32)
  return x, jnp.asarray(0.5), jnp.arange(batch) % CLASSES


@jax.jit
def evaluate(denoise: Any, x: Any, t: Any, cond: Any) -> Any:
  """The pair that is predicted; what else is returned, and not used, is not computed."""
  return denoise(x, t, cond)[:2]


def operations(denoise: Any, batch: int) -> tuple[float, Callable[[], Any]]:
  """XLA's count of one evaluation, and what runs it."""
  inputs = arguments(batch)
  compiled = evaluate.lower(denoise, *inputs).compile()
  return float(counted(compiled)), lambda: compiled(denoise, *inputs)


def rows(names: list[str], batch: int, rounds: int, net: str) -> list[str]:
  """The lines of the table."""
  plain = denoiser(net)
  doubled, run_doubled = operations(plain, 2 * batch)
  found = {name: operations(GUIDANCES[name](plain), batch) for name in dict.fromkeys(['forward', *names])}
  times = compare({**{name: run for name, (_, run) in found.items()}, 'doubled': run_doubled}, rounds)
  base = found['forward'][0]
  lines = []
  for name, (count, _) in [*found.items(), ('doubled', (doubled, None))]:
    price = guidance.cost(GUIDANCES[name](plain), 0.5) if name in GUIDANCES else 2
    held = f' | {count / doubled:.3f}' if name in ('cfg', 'doubled') else ' | -'
    lines.append(f'| {name} | {price} | {count / base:.2f}{held} | {times[name]["wall_ratio"]:.2f} |')
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('guidances', nargs='*')
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--net', choices=sorted(NETS), default='dit')
  options = parser.parse_args()
  unknown = sorted(set(options.guidances) - set(GUIDANCES))
  if unknown:
    raise SystemExit(str(InputError(f'guidances: got {unknown[0]!r}; allowed: {", ".join(GUIDANCES)}')))
  print(f'{options.net}, batch {options.batch}, {jax.default_backend()}\n')
  print('| guidance | cost | operations / forward | / forward of twice the batch | time / forward |')
  print('|' + '---|' * 5)
  for line in rows(options.guidances or list(GUIDANCES), options.batch, options.rounds, options.net):
    print(line, flush=True)


if __name__ == '__main__':
  main()
