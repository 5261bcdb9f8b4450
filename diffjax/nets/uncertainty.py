"""A head that tells how large the loss is at each noise level."""

from flax import linen as nn

from .magnitude import MPDense, MPFourier

__all__ = ['Uncertainty']


class Uncertainty(nn.Module):
  """A learned log-uncertainty of the noise level.

  u(c) = <w, mp_fourier(c)> / sqrt(features), w of unit mean square: (B,) -> (B,) float32.

  c = -lam / 4 is the noise level as EDM embeds it.   arXiv:2312.02696 section 2.2 and appendix B.1
  """

  features: int = 128

  @nn.compact
  def __call__(self, c, t=None, cond=None, key=None):
    h = MPFourier(self.features, name='fourier')(c)
    return MPDense(1, (None, None), name='linear')(h)[..., 0]
