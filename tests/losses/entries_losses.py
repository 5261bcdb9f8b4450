"""The losses' rows of the property table."""

from typing import Any, NamedTuple

from entries import CLASSED, CLASSES, Entry, denoiser

from diffjax import losses
from diffjax.losses.fokker_planck import Potential


def loss(make):
  """make(process, net) -> loss."""

  def run(denoise, x, cond, key):
    return make(denoise.process, denoise.net)({'student': denoise.params}, {'x': x, 'cond': cond}, key)

  return Entry(denoiser, run)


class Apart(NamedTuple):
  """A network of several modalities that never meet."""

  net: Any

  def __call__(self, params, x, t, cond, key):
    return {name: self.net(params, x[name], t[name], cond, key) for name in x}


def loss_of_two(make):
  """A `loss` of a point and of itself reversed."""

  def run(denoise, x, cond, key):
    batch = {'x': {'a': x, 'b': x[:, ::-1]}, 'cond': cond}
    return make(denoise.process, Apart(denoise.net))({'student': denoise.params}, batch, key)

  return Entry(denoiser, run)


LOSSES = {
  'denoising': loss(lambda process, net: losses.denoising(process, net, drop_cond=0.2, null=CLASSES)),
  'fokker_planck': loss(lambda process, net: losses.fokker_planck(process, Potential(net))),
  'high_order': loss(lambda process, net: losses.high_order(process, net, 'v')),
  'implicit': loss(lambda process, net: losses.implicit(process, net, 'v')),
  'locally_regularised': loss(lambda process, net: losses.locally_regularised(process, net, 'v', measure='stochastic')),
  'sliced': loss(lambda process, net: losses.sliced(process, net, 'v')),
  'modalities': loss_of_two(losses.modalities),
  'moments': loss(
    lambda process, net: losses.moments(process, net, ('residual2',), CLASSED.denoiser(process)),
  ),
}
GROUPS = {'losses': (LOSSES, losses.__all__)}
