"""The rows of the property table of codes and judges."""

import jax.numpy as jnp
from entries import Entry, denoiser
from jax.tree_util import Partial

from diffjax import represent, schedules
from diffjax.solvers import ddim, ddpm, sample

PROCESS, TS = schedules.vp_linear(), (0.9, 0.5, 0.2)  # of which tables are laid out on the host


def on_host(denoise):
  return denoise.replace(process=PROCESS)


def inverted(denoise, x, cond, key):
  return sample(on_host(denoise), represent.inversion(PROCESS, TS), x, cond=cond)


def encoded(denoise, x, cond, key):
  return tuple(represent.encode(on_host(denoise), ddpm(PROCESS, TS), x, key, cond))[1:]


def translated(denoise, x, cond, key):
  return represent.translate(on_host(denoise), on_host(denoise), ddpm(PROCESS, TS), x, key, cond, 1 - cond // 2)


def drawn(denoise, cond, z):
  return denoise(z, 0.5, cond).x0


def towards_zero(x):
  return jnp.sum(x**2, -1)


def guided(denoise, x, cond, key):
  out = represent.guided_codes(Partial(drawn, denoise, cond), towards_zero, x, key, steps=2, exact=True)
  return out.z, out.energy


def coded(denoise, x, cond, key):
  return represent.latent(on_host(denoise), ddim(PROCESS, TS), cond)(x[:, None])


def classified(denoise, x, cond, key):
  return represent.diffusion_classifier(on_host(denoise), x, key, 3, stages=((2, 1),)).errors


def answered(denoise, x, cond, key):
  return represent.response(on_host(denoise), ddim(PROCESS, TS), x, 1 + x**2, cond)


def edited(denoise, x, cond, key):
  return represent.editable(denoise, 'hidden0', cond, 0.9)(x, 0.5, 1.0)[0]


REPRESENT = {
  'inversion': Entry(denoiser, inverted),
  'reconstructed': Entry(
    denoiser, lambda denoise, x, cond, key: represent.reconstructed(on_host(denoise), TS, x, cond)
  ),
  'encode': Entry(denoiser, encoded, close=1e-4),
  'translate': Entry(denoiser, translated, close=1e-4),
  'guided_codes': Entry(denoiser, guided, close=1e-4),
  'latent': Entry(denoiser, coded),
  'diffusion_classifier': Entry(denoiser, classified, close=1e-4),
  'expected_score': Entry(
    denoiser,
    lambda denoise, x, cond, key: represent.expected_score(on_host(denoise), x, key, cond, times=2),
    close=2e-3,
  ),
  'response': Entry(denoiser, answered, close=1e-4),
  'editable': Entry(denoiser, edited, close=1e-4),
}
RECORDS = {name for name in represent.__all__ if name[0].isupper()}
# on the host, of whole sets or generators, or a part of others
PARTS = {
  'accuracy', 'anomaly', 'auroc', 'candidates', 'causal_effect', 'causal_units', 'decode', 'dissect', 'explained',
  'fit_kernel', 'gaussian_response', 'median_kernel', 'mmd2',
}  # fmt: skip
GROUPS = {'represent': (REPRESENT, set(represent.__all__) - RECORDS - PARTS)}
