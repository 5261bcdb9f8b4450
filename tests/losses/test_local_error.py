"""The error of one step: on linear flows a polynomial, of the order it should have; and what it adds to a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, losses, nets, schedules
from diffjax.errors import InputError
from diffjax.kinds import as_kind
from diffjax.losses.local_error import ERROR, NODES, STABLE, STAGES, one_step, one_stochastic_step
from diffjax.prediction import Denoiser
from diffjax.solvers import dopri5
from diffjax.train.optimiser import adam
from diffjax.train.roles import Method, Phase
from experiments import ring

MATRIX = np.zeros((7, 7))
for i, row in enumerate(STAGES):
  MATRIX[i, : len(row)] = row


def test_the_pair_has_orders_five_and_four():
  """Weights of the step are its last stage; conditions of order on trees up to five, and of the error up to four."""
  b, c = MATRIX[6], NODES
  np.testing.assert_allclose(MATRIX.sum(1), c, atol=1e-14)
  for k in range(1, 6):
    assert abs(b @ c ** (k - 1) - 1 / k) < 1e-14
  for k in range(1, 5):
    assert abs(ERROR @ c ** (k - 1)) < 1e-14
  assert abs(ERROR @ c**4) > 1e-5
  power = np.ones(7)
  for k in range(2, 6):
    power = MATRIX @ power
    assert abs(b @ power - 1 / np.prod(np.arange(1, k + 1))) < 1e-14


def test_the_error_of_a_linear_flow_is_a_polynomial(x64):
  """z e^T (1 - z A)^{-1} 1 with z = h lam, to 1e-9; stiffness is |lam| / 3.5068; a shorter step is 2^5 finer."""
  lam, x = -1.7, jnp.asarray([[2.0, -1.0], [0.3, 0.8]])
  h = jnp.asarray([0.3, -0.2])
  found = jax.jit(lambda h: one_step(lambda x, t: lam * x, x, jnp.ones(2), h, 0.1))(h)
  for i in range(2):
    z = float(h[i]) * lam
    stages = np.linalg.solve(np.eye(7) - z * MATRIX, np.ones(7))
    error, end = z * ERROR @ stages * x[i], stages[6] * x[i]
    scale = 0.1 * (1 + np.maximum(np.abs(x[i]), np.abs(end)))
    np.testing.assert_allclose(found['error'][i], abs(h[i]) * np.sqrt(np.mean((error / scale) ** 2)), rtol=1e-9)
  np.testing.assert_allclose(found['stiffness'], 1.7 / STABLE, rtol=1e-9)
  bent = jax.jit(lambda h: one_step(lambda x, t: -jnp.sin(x * t), x, jnp.ones(2), h, 0.1)['error'])
  fine = [bent(h / 20 / n) for n in (1, 2)]
  np.testing.assert_allclose(np.log2(fine[0] / fine[1]), 6, atol=0.15)  # |h| times an error of order five


def test_the_error_of_a_stochastic_step(x64):
  """Of dx = lam x dt + s t dw: (h^2 lam^2 x + h lam s t sqrt h z) / 2 / 6 + sqrt h s h z / 2."""
  lam, s, h, t = -1.3, 0.7, 0.1, 0.5
  x, z = np.array([[2.0]]), np.array([[0.4]])
  got = one_stochastic_step(lambda x, t: lam * x, lambda t: s * t, *map(jnp.asarray, (x, [t], [h], z)), 0.05)
  ahead = x + h * lam * x + np.sqrt(h) * s * t * z
  error = h * lam * (ahead - x) / 12 + np.sqrt(h) * s * h * z / 2
  np.testing.assert_allclose(
    got, h * np.abs(error / (0.05 * (1 + np.maximum(np.abs(x), np.abs(ahead)))))[0], rtol=1e-12
  )


@pytest.mark.parametrize('measure', ['error', 'stochastic', pytest.param('stiffness', marks=pytest.mark.slow)])
def test_it_is_denoising_plus_a_penalty_that_does_not_move_the_start(measure):
  """Values are linear in the penalty; the gradient is finite; the draws are those of the denoising loss."""
  process = schedules.flow()
  net = nets.mlp(4, 1)
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1))
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), jnp.float32), shapes)
  batch, key = {'x': jnp.asarray(rng.standard_normal((4, 2)), jnp.float32)}, keys.per_sample(jax.random.key(0), 4)

  def values(penalty):
    loss = losses.locally_regularised(process, net, penalty=penalty, measure=measure)
    return lambda params: loss({'student': params}, batch, key)

  @jax.jit
  def run(params):
    plain = losses.denoising(process, net, 'velocity')({'student': params}, batch, key)
    slope = jax.grad(lambda params: jnp.sum(values(1.0)(params)[0]))(params)
    return plain, values(1.0)(params), values(3.0)(params), slope

  (plain, _), (one, aux), (three, _), slope = run(params)
  np.testing.assert_allclose(one - plain, aux[measure], atol=1e-5)
  np.testing.assert_allclose(three - plain, 3 * aux[measure], rtol=1e-4, atol=1e-5)
  assert (aux[measure] > 0).all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_bad_numbers_are_refused():
  for field, bad in dict(measure='order', penalty=0.0, length=-1.0, tolerance=0.0).items():
    with pytest.raises(InputError, match=f'{field}: got .*allowed'):
      losses.locally_regularised(schedules.flow(), nets.mlp(4, 1), **{field: bad})


@pytest.mark.slow
def test_a_regularised_flow_takes_fewer_evaluations():
  """Eight Gaussians by rectified flow, 1500 steps: evaluations at rtol 1e-5 fall by 20%, W2 stays within a tenth."""
  target, process, net = ring.ring(), schedules.flow(), nets.mlp(64, 3)
  found = {}
  for name, loss in {
    'plain': losses.denoising(process, net, 'velocity'),
    'held': losses.locally_regularised(process, net, penalty=30.0),
  }.items():
    init = lambda key: {'student': net.init(key, jnp.zeros((1, 2)), jnp.zeros(1))}  # noqa: E731
    method = Method((Phase('student', loss, adam(1500, 2e-3, schedule='cosine')),), init=init)
    roles = ring.trained(method, target, 1500, batch=256)
    denoise = Denoiser(roles['student'], process, as_kind('velocity'), net=net)
    z = keys.normal(keys.per_sample(jax.random.key(5), 4000), jnp.zeros((4000, 2)))
    solution = dopri5(denoise, z, rtol=1e-5, atol=1e-5)
    found[name] = float(solution.nfe.mean()), ring.figures(np.asarray(solution.x), target)
  print(found)
  assert found['held'][0] <= 0.8 * found['plain'][0], found
