"""Writing tables: algebra, errors, printing, padding, element-wise and traced coefficients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import build, gm_a, legal_grid

from diffjax import schedules, solvers
from diffjax.solvers import TableBuilder, grids, pad, sample


def test_algebra_writes_the_weights():
  table = TableBuilder('x', 'm')
  table.row(0.5, x=2 * table.x - (table.x0 - table.m) / 4 + 3, m=-(1 - table.eps) * np.float64(2) + table.one)
  table.row(0.25, evaluated=False, m=0.5 * table.z)
  table = table.done()
  columns = 'x m x0 eps 1 z'.split()
  assert dict(zip(columns, table.rows.weights[0, 0], strict=True)) == dict(x=2, m=0.25, x0=-0.25, eps=0, z=0) | {'1': 3}
  assert dict(zip(columns, table.rows.weights[0, 1], strict=True)) == dict(x=0, m=0, x0=0, eps=2, z=0) | {'1': -1}
  np.testing.assert_array_equal(table.rows.weights[1], [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.5]])
  np.testing.assert_array_equal(table.rows.evaluated, [True, False])
  assert table.nfe == 1 and table.skips and table.stochastic and table.registers == ('x', 'm')


def test_a_history_holds_the_values_of_earlier_rows():
  """After k rows that store k-th powers, register j holds that of the row j + 1 back; none before the first."""
  table = TableBuilder('x', 'other')
  for i in range(4):
    h = table.history('m', 2, 2.0**i * table.one)
    table.row(1 - i / 4, x=h[0] + 10 * h[1] + 100 * h[2], **h.shifted())
  assert h.names == ('m1', 'm2')
  table = table.done()
  assert table.registers == ('x', 'other', 'm1', 'm2')
  state, seen = np.zeros(4), []
  for weights in table.rows.weights:
    state = weights[:, :4] @ state + weights[:, 6]
    seen.append(state[0])
  assert seen == [1, 2 + 10, 4 + 20 + 100, 8 + 40 + 200]


def test_flags_are_off_where_nothing_needs_them():
  process = schedules.flow()
  table = solvers.ddim(process, grids.uniform(process, 3))
  assert not table.skips and not table.stochastic and solvers.ddpm(process, grids.uniform(process, 3)).stochastic


def test_errors():
  with pytest.raises(ValueError, match="registers: got .*; allowed: 'x' first"):
    TableBuilder('y')
  with pytest.raises(ValueError, match='registers: got'):
    TableBuilder()
  table = TableBuilder('x', 'm')
  with pytest.raises(ValueError, match=r"register: got \['n'\]; allowed: x, m"):
    table.row(0.5, n=table.x)
  with pytest.raises(AttributeError, match="no register 'n'; it has x, m"):
    table.n  # noqa: B018
  table.row(0.5, x=np.inf * table.x)
  with pytest.raises(ValueError, match='row 0 at t = 0.5 has a coefficient that is not finite'):
    table.done()


def test_printing_shows_every_coefficient():
  process = schedules.vp_linear()
  for name in solvers.tables.__all__:
    table = build(name, process, legal_grid(name, process, 4))
    text = str(table)
    assert f'{len(table.rows.t)} rows, {table.nfe} evaluations, registers {", ".join(table.registers)}' in text
    columns = (*table.registers, 'x0', 'eps', '1', 'z')
    for i, row in enumerate(text.splitlines()[1:]):
      assert float(re.search(r't = (\S+)', row)[1]) == pytest.approx(table.rows.t[i], rel=1e-3)
      x_part = re.search(r"x' = (.*?)(?:   |$)", row)[1]
      shown = {column: float(number) for number, column in re.findall(r'([+-]?[\d.e-]+) (\w+)', x_part)}
      true = {c: w for c, w in zip(columns, table.rows.weights[i, 0], strict=True) if w}
      assert set(shown) == set(true)
      assert all(shown[c] == pytest.approx(true[c], rel=1e-3) for c in true), (name, i)


def test_printing_marks_rows_without_evaluation_and_element_wise_weights():
  table = TableBuilder('x')
  table.row(0.5, x=np.array([0.5, 1.0]) * table.x)
  table.row(0.25, evaluated=False)
  lines = str(table.done()).splitlines()
  assert "x' = [0.5..1] x" in lines[1] and re.search(r'0\.25\s+-', lines[2]) and '2 rows, 1 evaluations' in lines[0]


@pytest.mark.parametrize('name', solvers.tables.__all__)
def test_padding_changes_nothing(name):
  process = schedules.vp_linear()
  table = build(name, process, legal_grid(name, process, 5))
  denoise, x = gm_a().denoiser(process), jax.random.normal(jax.random.key(0), (4, 2))
  wide = pad(table, 20, 6)
  assert wide.nfe == table.nfe
  np.testing.assert_allclose(
    sample(denoise, wide, x, jax.random.key(1)), sample(denoise, table, x, jax.random.key(1)), rtol=1e-6, atol=1e-6
  )


def test_padded_methods_share_one_program(compiles):
  process = schedules.vp_linear()
  denoise, x = gm_a().denoiser(process), jax.random.normal(jax.random.key(0), (4, 2))
  wide = [pad(build(name, process, grids.karras(process, n)), 20, 4) for name in ('ddim', 'unipc') for n in (7, 9)]
  wide += [pad(build(name, process, grids.uniform(process, 10)), 20, 4) for name in ('dpmpp_2m', 'heun', 'euler')]
  first = sample(denoise, wide[0], x)
  with compiles(0):
    rest = [sample(denoise, table, x) for table in wide[1:]]
  assert all(not np.array_equal(first, other) for other in rest)


def test_padding_keeps_the_streams_of_noise():
  process = schedules.vp_linear()
  table = solvers.ddpm(process, grids.uniform(process, 3))
  shifted = table.replace(rows=table.rows._replace(stream=table.rows.stream + 40))
  np.testing.assert_array_equal(pad(shifted, 5, 1).rows.stream[:3], [40, 41, 42])


def test_padding_refuses_to_shrink():
  process = schedules.flow()
  table = solvers.dpmpp_2m(process, grids.uniform(process, 5))
  with pytest.raises(ValueError, match='rows: got 4; allowed: at least the 5'):
    pad(table, 4, 2)
  with pytest.raises(ValueError, match='registers: got 1; allowed: at least the 2'):
    pad(table, 5, 1)


def test_element_wise_weights():
  """Constant vectors are the scalar method; different ones move each coordinate by its own; padding keeps them."""
  process = schedules.vp_linear()
  denoise, x = gm_a().denoiser(process), jax.random.normal(jax.random.key(0), (4, 2))

  def halves(*weights):
    table = TableBuilder('x', 'm')
    for t in (0.9, 0.5, 0.1):
      table.row(t, x=weights[0] * table.x + (1 - weights[0]) * table.x0 - weights[1] * table.m, m=table.x0)
    return table.done()

  scalar, other = halves(0.5, 0.1), halves(0.25, 0.2)
  same = halves(np.full(2, 0.5), np.full(2, 0.1))
  assert same.rows.weights.shape == (3, 2, 6, 2)
  np.testing.assert_allclose(sample(denoise, same, x), sample(denoise, scalar, x), rtol=1e-6)
  np.testing.assert_allclose(sample(denoise, pad(same, 5, 3), x), sample(denoise, scalar, x), rtol=1e-6)
  mixed = halves(np.array([0.5, 0.25]), np.array([0.1, 0.2]))
  pred = denoise(x, 0.9)
  one = TableBuilder('x')
  one.row(0.9, x=np.array([0.5, 0.25]) * one.x + np.array([0.5, 0.75]) * one.x0)
  np.testing.assert_allclose(
    sample(denoise, one.done(), x), np.array([0.5, 0.25]) * x + np.array([0.5, 0.75]) * pred.x0, rtol=1e-6
  )
  assert not np.allclose(sample(denoise, mixed, x), sample(denoise, other, x))


def test_a_traced_builder_passes_gradients_to_the_grid(x64):
  process = schedules.vp_linear()
  denoise, x = gm_a().denoiser(process), jax.random.normal(jax.random.key(0), (4, 2))

  def loss(ts):
    alpha, sigma = process.schedule(ts)
    table = TableBuilder('x')
    for i in range(3):
      table.row(ts[i], x=alpha[i + 1] * table.x0 + sigma[i + 1] * table.eps)
    return jnp.sum(sample(denoise, table.done(), x) ** 2)

  ts, way = jnp.asarray([0.9, 0.6, 0.3, 0.1]), jnp.asarray([0.3, -1.0, 0.5, 0.2])
  slope = float(jax.jit(jax.grad(loss))(ts) @ way)
  h, run = 1e-5, jax.jit(loss)
  assert slope == pytest.approx(float(run(ts + h * way) - run(ts - h * way)) / (2 * h), rel=1e-6)
