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
}
RECORDS = {'Accuracy', 'Classified', 'Code', 'Guided', 'Latent', 'Translated'}
PARTS = {'accuracy', 'decode'}  # on the host, or a part of `translate`
GROUPS = {'represent': (REPRESENT, set(represent.__all__) - RECORDS - PARTS)}
