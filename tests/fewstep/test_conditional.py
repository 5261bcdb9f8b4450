"""CoMoSpeech: noise about a mean is the plain process shifted, the encoder rests at the means, spectra in one step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import data, exact, fewstep, keys, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.methods import Sampling, Source
from diffjax.train.ema import constant
from diffjax.train.step import init_state, make_train_step
from experiments.ring import parts

EDM = schedules.edm(sigma_min=0.01, sigma_max=10.0)


def vowels(frames=4, bins=5):
  """The law of `data.spectra` as a mixture, a Gaussian a vowel."""
  law = data.load('spectra', 'train', frames=frames, bins=bins, n=8).law
  means = law.means.reshape(5, -1)
  return exact.mixture(np.full(5, 0.2), means, law.covariances)


SPECTRA = vowels()
DIM = SPECTRA.means.shape[1]


def made(width=8, depth=1, steps=40, **changes):
  net = nets.mlp(width=width, depth=depth, classes=5)
  own = parts(SPECTRA, EDM, kinds.edm(0.5), net=net, steps=steps, classes=5, **changes)
  teacher = Source('spectra', EDM, (DIM,), 5, (), lambda _: SPECTRA.denoiser(EDM))
  return dataclasses.replace(own, teacher=teacher)


def begun(**options):
  method = fewstep.conditional_consistency(made(), **options)
  roles = dict(jax.jit(method.init)(jax.random.key(0)))
  roles['encoder'] = {'mean': SPECTRA.means + 0.1}
  roles['student'] = jax.tree.map(lambda p: p + 0.1, roles['student'])
  roles['target'] = jax.tree.map(lambda p: 0.9 * p, roles['student'])
  cond = jnp.arange(20) % 5
  return method, roles, {'x': SPECTRA.sample(keys.per_sample(jax.random.key(1), 20), cond), 'cond': cond}


def test_noise_about_a_mean_is_the_plain_process_shifted(x64):
  """The sampler of the centred teacher in its own points, x = x' + sigma mu and drift (x - D) / sigma: to 1e-9."""
  rng = np.random.default_rng(0)
  cond = np.arange(10) % 5
  mean, xi = np.asarray(SPECTRA.means)[cond] + 0.3, rng.standard_normal((10, DIM))
  sigma = np.geomspace(10.0, 0.01, 12)
  shifted, x = sigma[0] * xi, sigma[0] * (mean + xi)
  denoise = jax.jit(lambda x, t: SPECTRA.predict(x, 1.0, t, jnp.asarray(cond)).x0)
  for t, s in zip(sigma[:-1], sigma[1:], strict=True):
    shifted = shifted + (s - t) * (shifted - np.asarray(denoise(shifted, t))) / t
    x = x + (s - t) * (x - np.asarray(denoise(x - t * mean, t))) / t
    np.testing.assert_allclose(x - s * mean, shifted, atol=1e-9)


def test_the_network_sees_the_noise_about_the_mean():
  """Handed c_in (x' + sigma mu) and mu; with no centre c_in x'; of each kind the same x' in the loss."""
  seen = []

  def net(params, x, t, cond, key):
    seen.append((np.asarray(x), np.asarray(cond['source'])))
    return jnp.zeros_like(x)

  for centred in (True, False):
    method, roles, batch = begun(centred=centred)
    draw = method.generator(roles, Sampling(1, lambda: np.array([10.0, 0.0]), lambda: None, lambda denoise: denoise))
    jump = draw.jump.replace(net=net)
    x, t = 3 * batch['x'], jnp.full((20,), 2.0)
    jump.out(draw.params, x, t, t, batch['cond'])
    mean = np.asarray(SPECTRA.means + 0.1)[np.asarray(batch['cond'])]
    want = (np.asarray(x) + 2.0 * mean * centred) / np.sqrt(4.25)
    np.testing.assert_allclose(seen[-1], (want, mean), rtol=1e-5, atol=1e-6)


def test_each_phase_moves_its_role():
  """The encoder rests at the means of the classes; the student's loss moves neither it nor the target."""
  method, roles, batch = begun()
  encoder, student = (
    jax.jit(jax.grad(lambda roles, loss=phase.loss: jnp.mean(loss(roles, batch, jax.random.key(2))[0])))(roles)
    for phase in method.phases
  )
  size = lambda grads: {k: sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(v)) for k, v in grads.items()}  # noqa: E731
  first, second = size(encoder), size(student)
  assert first.pop('encoder') > 0 and not any(first.values())
  assert second.pop('student') > 0 and not any(second.values())
  means = jnp.stack([batch['x'][batch['cond'] == c].mean(0) for c in range(5)])
  at_rest = jax.grad(lambda e: jnp.mean(method.phases[0].loss({'encoder': e}, batch, None)[0]))({'mean': means})
  np.testing.assert_allclose(at_rest['mean'], 0, atol=1e-7)


def test_refusals():
  with pytest.raises(InputError, match='data.classes: got 0'):
    fewstep.conditional_consistency(parts(SPECTRA, EDM, kinds.edm(0.5), net=nets.mlp(width=8, depth=1)))
  with pytest.raises(InputError, match='given: got'):
    fewstep.conditional_consistency(dataclasses.replace(made(), net=nets.dit('S')))


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='covariances off by .46 to .67, means by .04 to .07')
@pytest.mark.slow
def test_spectra_in_one_step():
  """Given the vowel: the covariance within 15 % (Frobenius), each mean within 5 % of the deviation (rms)."""
  steps, ema = 4000, (constant(0.999),)
  method = fewstep.conditional_consistency(made(width=192, depth=3, steps=steps))
  move = make_train_step(method, ema)

  def drawn(key):
    k_c, k_x = jax.random.split(key)
    cond = jax.random.randint(k_c, (256,), 0, 5)
    return {'x': SPECTRA.sample(keys.per_sample(k_x, 256), cond), 'cond': cond}

  @jax.jit
  def run(key):
    state = init_state(method, method.init(key), key, jax.eval_shape(drawn, key), ema)
    one = lambda state, i: (move(state, drawn(jax.random.fold_in(key, i)), (0, 1))[0], None)  # noqa: E731
    return jax.lax.scan(one, state, jnp.arange(steps))[0]

  state = run(jax.random.key(0))
  roles = {role: averages[ema[0].name] for role, averages in state.ema.items()}
  draw = method.generator(roles, Sampling(1, lambda: np.array([10.0, 0.0]), lambda: None, lambda denoise: denoise))
  n = 10000
  sample = jax.jit(lambda draw, cond: draw(keys.per_sample(jax.random.key(5), n), cond))
  errors = []
  for c in range(5):
    x = np.asarray(sample(draw, jnp.full((n,), c)))
    want = np.asarray(SPECTRA.covariances[c])
    off = np.sqrt(np.mean((x.mean(0) - np.asarray(SPECTRA.means[c])) ** 2) / np.mean(np.diag(want)))
    errors.append((np.linalg.norm(np.cov(x.T) - want) / np.linalg.norm(want), off))
  covariance, mean = np.array(errors).max(0)
  assert covariance <= 0.15 and mean <= 0.05, errors
