"""The solvers' rows of the property table."""

import jax.numpy as jnp
import numpy as np
from entries import CLASSES, Entry, Static, denoiser, small, weights

from diffjax import guidance, nets, schedules, solvers, statistics
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser
from diffjax.solvers import grids
from diffjax.solvers.own import adaptive


def run_solver(tree, x, cond, key):
  return solvers.sample(*tree, x, key, cond)


def solver(name, after=lambda table: table):
  """A padded table; `tests/solvers` has them as they are."""
  return padded(lambda process, ts: after(getattr(solvers, name)(process, ts)), to_zero=True)


def padded(make, to_zero=False):
  """make(process, ts): a table, padded."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    ts = grids.uniform(denoise.process, 4, to_zero=to_zero) ** (1 + 0.2 * seed)
    return denoise, solvers.pad(make(denoise.process, ts), 16, 6)

  return Entry(numbers, run_solver, padded=True)


def rewritten(make):
  """make(process, ts): a table made of another, unpadded."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    return denoise, make(denoise.process, grids.uniform(denoise.process, 4, to_zero=False) ** (1 + 0.2 * seed))

  return Entry(numbers, run_solver)


def informed(name, known, entry=rewritten):
  """known(process): the statistics that the table is laid out on."""
  return entry(lambda process, ts: getattr(solvers, name)(process, ts, known(process)))


def slanted(process):
  """Linear terms that differ between elements."""
  l = np.array([[1.0, 0.9], [0.2, 0.0]])  # noqa: E741
  return statistics.linear_form(process).replace(l=l, s=l - 1, b=0.1 * l)


def informed_by_heads(name):
  """An own-step solver of a denoiser with moments of the noise."""

  def numbers(seed, dtype):
    denoise, net = denoiser(seed, dtype), nets.mlp(width=8, depth=1, out_channels=6, classes=CLASSES, dtype=dtype)
    heads = guidance.with_moments(denoise, net, weights(net, seed + 10), ('eps2', 'eps3', 'residual2'))
    ts = grids.uniform(denoise.process, 4, to_zero=False) ** (1 + 0.2 * seed)
    return heads, getattr(solvers, name)(denoise.process, ts, clip=(-3 - seed, 3), data_var=1 + seed)

  return Entry(numbers, run_solver)


def informed_by_jacobian():
  def numbers(seed, dtype):
    denoise, table = rewritten(lambda process, ts: solvers.full_dpm(process, ts, data_var=1 + seed)).numbers(
      seed, dtype
    )
    return guidance.with_covariance(denoise, 2), table

  return Entry(numbers, run_solver, reverse=False)  # eigenvectors of equal eigenvalues have no derivative


def alone(solve, close=2e-5):
  """solve(denoise, x, cond): one that chooses its own times, so the process is known outside the program."""
  process = schedules.vp_linear(0.1, 5.0)  # ends where float32 still tells two orders apart

  def run(tree, x, cond, key):
    net, params = tree
    return solve(Denoiser(params, process, as_kind('v'), CLASSES, net=net.value), x, cond).x

  return Entry(lambda seed, dtype: (Static(small(dtype)), weights(small(dtype), seed)), run, close=close, reverse=False)


def begun(draw):
  """draw(process, solver, std, x, keys): what x is begun with."""

  def numbers(seed, dtype):
    process = schedules.vp_linear(0.1 + 0.1 * seed, 20.0 - seed)
    return process, solvers.ddim(process, grids.uniform(process, 4) * (1 - 0.05 * seed)), 0.5 + 0.1 * seed

  return Entry(numbers, lambda tree, x, cond, key: draw(*tree, x, key), reads_x=False)


SOLVERS = {
  'analytic_dpm': informed('analytic_dpm', statistics.isotropic, padded),
  'ancestral': solver('ancestral'),
  'ddim': solver('ddim'),
  'ddpm': solver('ddpm'),
  'ddpm_large': solver('ddpm_large'),
  'deis_rhoab': solver('deis_rhoab'),
  'deis_rhork': solver('deis_rhork'),
  'deis_tab': solver('deis_tab'),
  'dpm_fast': solver('dpm_fast'),
  'dpm_solver': solver('dpm_solver'),
  'dpm_v3': informed('dpm_v3', slanted),
  'dpmpp_2m': solver('dpmpp_2m'),
  'dpmpp_2s': solver('dpmpp_2s'),
  'dpmpp_3m': solver('dpmpp_3m'),
  'dpmpp_3m_compat': solver('dpmpp_3m_compat'),
  'dpmpp_3s': solver('dpmpp_3s'),
  'euler': solver('euler'),
  'euler_maruyama': solver('euler_maruyama'),
  'exponential_adams': solver('exponential_adams'),
  'f_pndm': solver('f_pndm'),
  'flow_sde': solver('flow_sde'),
  'ghvb': solver('ghvb'),
  'full_dpm': informed_by_jacobian(),
  'gms': informed_by_heads('gms'),
  'heun': solver('heun'),
  'heun_in_t': solver('heun_in_t'),
  'ipndm': solver('ipndm'),
  'midpoint': solver('midpoint'),
  'npr_dpm': informed_by_heads('npr_dpm'),
  'predictor_corrector': rewritten(solvers.predictor_corrector),
  'reverse_diffusion': solver('reverse_diffusion'),
  'rk4': solver('rk4'),
  's_pndm': solver('s_pndm'),
  'sde_adams': solver('sde_adams'),
  'sde_dpm': solver('sde_dpm'),
  'sde_dpmpp_2m': solver('sde_dpmpp_2m'),
  'sn_dpm': informed_by_heads('sn_dpm'),
  'trig_adams': solver('trig_adams'),
  'unipc': solver('unipc'),
}
TABLE_TRANSFORMS = {
  'churn': padded(lambda process, ts: solvers.churn(solvers.dpmpp_2m, process, ts, s_churn=1.0)),
  'denoise_to_zero': padded(
    lambda process, ts: solvers.denoise_to_zero(solvers.dpmpp_2m(process, ts), process, ts[-1])
  ),
  'dualfast': padded(lambda process, ts: solvers.dualfast(solvers.dpmpp_2m(process, ts), process, 0.2)),
  'heavy_ball': solver('dpmpp_2m', after=solvers.heavy_ball),
  'in_data_form': rewritten(lambda process, ts: solvers.in_data_form(solvers.ipndm(process, ts), process)),
  'nesterov': solver('dpmpp_2m', after=solvers.nesterov),
  'restart': padded(lambda process, ts: solvers.restart(solvers.dpmpp_2m, process, ts, levels=[(2, 1, 0.3, 2.0)])),
  'pair_form': padded(lambda process, ts: solvers.pair_form(solvers.dpmpp_2m(process, ts), process)),
  'recurrent': padded(lambda process, ts: solvers.recurrent(solvers.ddim, process, ts)),
}
ADAPTIVE = {
  'sada': rewritten(lambda process, ts: solvers.dpmpp_2m(process, np.linspace(ts[0], ts[-1], 11)))._replace(
    run=lambda tree, x, cond, key: solvers.sada(*tree, x, cond, between=(0.3, 0.8), late=0.8).x
  ),
  'picard': rewritten(solvers.ddim)._replace(
    run=lambda tree, x, cond, key: solvers.picard(*tree, x, key, cond, window=3, tol=0.0).x, reverse=False
  ),
  'dopri5': alone(lambda denoise, x, cond: solvers.dopri5(denoise, x, cond, rtol=0.1, atol=0.1, end=0.3, max_steps=8)),
  # steps follow a difference of two orders, whose rounding differs between programs: each is within tolerance of the
  # solution, not of the other to rounding
  'dpm_adaptive': alone(
    lambda denoise, x, cond: solvers.dpm_adaptive(denoise, x, cond, rtol=0.01, atol=0.01, end=0.3, max_steps=20),
    close=3e-2,
  ),
}
STARTS = {
  'from_source': begun(
    lambda process, solver, std, x, key: solvers.from_source(process, solver, key, std * x)
  )._replace(reads_x=True),
  'start': begun(lambda process, solver, std, x, key: solvers.start(process, solver, key, x, std=std)),
  'start_time': begun(lambda process, solver, std, x, key: jnp.full(len(x), solvers.start_time(process, solver, std))),
}
GROUPS = {
  'solvers': (SOLVERS, (*solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step)),
  'table transforms': (TABLE_TRANSFORMS, solvers.table_transforms),
  'starts': (STARTS, ('from_source', 'start', 'start_time')),
  'adaptive': (ADAPTIVE, {*adaptive.__all__, 'picard', 'sada'} - {'Solution'}),
}
