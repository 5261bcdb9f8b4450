import jax.numpy as jnp
import numpy as np

from diffjax.train import meter


def test_means_over_steps_and_bins():
  rng = np.random.default_rng(0)
  t, error, values = rng.uniform(0, 4, (3, 64)), rng.normal(size=(3, 64)), rng.normal(size=(3, 64))
  made = [
    meter.summarise(
      jnp.asarray(v), dict(t=jnp.asarray(a), error=jnp.asarray(e), hit=jnp.asarray(a > 2)), lambda t: t / 4
    )
    for v, a, e in zip(values, t, error, strict=True)
  ]
  total = meter.blank({'student': made[0]})['student']
  for i, summary in enumerate(made):
    total = meter.add(total, summary, jnp.asarray(True))
    total = meter.add(total, {k: v * jnp.nan for k, v in summary.items()}, jnp.asarray(False))
    del i
  line = meter.means({'student': total})
  assert abs(line['loss'] - values.mean()) < 1e-6 and abs(line['hit'] - np.mean(t > 2)) < 1e-6
  for i in range(8):
    assert abs(line[f'error_bin{i}'] - error[(t >= i / 2) & (t < (i + 1) / 2)].mean()) < 1e-5


def test_nothing_seen_is_nan_and_phases_are_named():
  blank = meter.blank({'a': meter.summarise(jnp.ones(2), {}), 'b': meter.summarise(jnp.ones(()), {})})
  line = meter.means(blank)
  assert list(line) == ['a/loss', 'b/loss'] and all(np.isnan(v) for v in line.values())
