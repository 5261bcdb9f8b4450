"""The cross table: process x kind of network x solver x guidance agree on a labelled 2-D mixture.

A network of any kind that is exact says the same pair (x0, eps), so every solver must end where it ends with the exact
denoiser, guided or not. Solvers are padded to one size: one program a process, kind and guidance runs them all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance, kinds, schedules, search, solvers
from diffjax.exact import mixture
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser, target
from diffjax.solvers import grids

GUIDANCE = {
  'plain': lambda denoise: denoise,
  'cfg and threshold': lambda denoise: guidance.threshold(guidance.cfg(denoise, 2.0, null=-1), -1.5, 1.5),
}
TARGET = mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], [0.16, 0.09, 0.25])


def exact_net(params, x, t, cond, key):
  """What a perfect network of this kind returns; `t` is the process's own time, the input is scaled by the kind."""
  law, process, kind = params
  form = kind(process, t)
  x = x / form.c_in.reshape(-1, 1)
  pred = law.denoiser(process)(x, t, cond)
  return target(process, kind, pred.x0, pred.eps, t)


@jax.jit
def run(denoise, tables, x, cond):
  return jax.lax.map(lambda table: solvers.sample(denoise, table, x, None, cond), tables)


def deterministic(process, ts):
  """The names of the tables without noise, and the tables on this grid as one stack."""
  tables = {name: getattr(solvers, name)(process, ts) for name in solvers.tables.__all__ if name != 'ancestral'}
  tables = {name: table for name, table in tables.items() if not table.stochastic}
  return list(tables), search.population(list(tables.values()))


PAIRS = [
  (process, guide)
  for process in ('vp_linear', 'flow', 'cosine', 'edm', 'sub_vp', 've', 'sigmoid')
  for guide in GUIDANCE
]
QUICK = [('vp_linear', 'cfg and threshold')]


@pytest.mark.parametrize(
  'kind_of_process, guide', [pytest.param(*p, marks=() if p in QUICK else pytest.mark.slow) for p in PAIRS]
)
def test_process_kind_solver_guidance(kind_of_process, guide, x64):
  process = getattr(schedules, kind_of_process)()
  ts = 0.98 * grids.uniform(process, 5, to_zero=False)  # eps and score have no x0 where alpha = 0
  scale = float(process.schedule(ts[0])[1])
  x = jnp.asarray(scale * np.random.default_rng(0).standard_normal((6, 2)))
  cond = jnp.arange(6) % 3
  names, tables = deterministic(process, ts)
  want = run(GUIDANCE[guide](TARGET.denoiser(process)), tables, x, cond)
  assert np.isfinite(want).all()
  for kind in kinds.__all__:
    form = as_kind(kind).plain()
    denoise = Denoiser((TARGET, process, form), process, form, -1, net=exact_net)
    got = run(GUIDANCE[guide](denoise), tables, x, cond)
    gap = np.abs(got - want).max((1, 2)) / np.abs(want).max((1, 2))
    assert (gap < 1e-6).all(), (kind, names[int(gap.argmax())], gap.max())
