"""Sums kept on the device between two lines of the log, so that no step waits for the host.

A meter is a dict phase -> name -> sum: the number of steps, and for each logged value its sum over them. Values by time
bin are summed over samples beside their numbers. Steps that were skipped add nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ['blank', 'add', 'means', 'summarise']

BINS = 8
TimeBins = Callable[[Array], Array]


def summarise(values: Array, aux: Mapping[str, Array], time_bins: TimeBins | None = None) -> dict[str, Array]:
  """What one batch adds: means of the loss and of aux, and the sum and number of aux['error'] in bins of aux['t'].

  time_bins maps t to [0, 1], cut into eight equal parts; t itself by default.
  """
  kept = {name: jnp.mean(value.astype(jnp.float32)) for name, value in aux.items() if name not in ('t', 'error')}
  kept['loss'] = jnp.mean(values.astype(jnp.float32))
  if 't' in aux and 'error' in aux:
    at = aux['t'] if time_bins is None else time_bins(aux['t'])
    inside = jnp.clip(BINS * at, 0, BINS - 1).astype(jnp.int32)[:, None] == jnp.arange(BINS)
    kept['bin_error'] = jnp.sum(jnp.where(inside, aux['error'].astype(jnp.float32)[:, None], 0), axis=0)
    kept['bin_count'] = jnp.sum(inside, axis=0, dtype=jnp.float32)
  return kept


def blank(shapes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Array]]:
  """The meter that has seen nothing: zeros for every phase's summary and a count of its steps."""
  return {
    phase: {
      'count': jnp.zeros((), jnp.float32),
      **{name: jnp.zeros(s.shape, jnp.float32) for name, s in summary.items()},
    }
    for phase, summary in shapes.items()
  }


def add(sums: Mapping[str, Array], summary: Mapping[str, Array], counts: Array) -> dict[str, Array]:
  """One phase's sums after another step, or the same where `counts` is False."""
  summary = {'count': jnp.ones((), jnp.float32), **summary}
  return {name: total + jnp.where(counts, summary[name], 0) for name, total in sums.items()}


def means(meter: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """The meter as a line of the log: name -> mean; nan where nothing was seen. With several phases, 'phase/name'."""
  line: dict[str, float] = {}
  for phase, sums in meter.items():
    prefix = f'{phase}/' if len(meter) > 1 else ''
    sums = {name: np.asarray(total, np.float32) for name, total in sums.items()}
    with np.errstate(invalid='ignore', divide='ignore'):
      for name in sorted(set(sums) - {'count', 'bin_error', 'bin_count'}, key=lambda n: (n != 'loss', n)):
        line[prefix + name] = float(sums[name] / sums['count'])
      if 'bin_error' in sums:
        by_bin = sums['bin_error'] / sums['bin_count']
        line.update({f'{prefix}error_bin{i}': float(value) for i, value in enumerate(by_bin)})
  return line
