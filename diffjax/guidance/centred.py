"""Point clouds about their mean: data that lie in a subspace, where noise need not be kept out of the rest."""

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.guidance.transform import Transform
from diffjax.nets.egnn import centred as subspace
from diffjax.prediction import Denoise, Pred, complete

__all__ = ['centred']


def centred(denoise: Denoise) -> 'Centred':
  """The predicted x0 of point clouds (B, N, 3 + F) with its places about their mean, and zero outside cond['mask'].

  x0 <- P x0, eps = (x - alpha x0) / sigma.   arXiv:2203.17003 sec. 3.1

  Noise of the whole space is isotropic, so what it does within the subspace P is the process of the subspace itself,
  drawn independently of the rest. The rest of x0 is known to be 0, which `P x0` says: a solver takes it there, and with
  a network that reads P x alone, samples are those of noise that was projected at every step. Processes, priors and
  solvers hence need to know nothing of it.
  """
  return Centred(denoise)


class Centred(Transform):
  """Made by `centred`."""

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    mask = cond.get('mask') if isinstance(cond, dict) else None
    return complete(self.process, x, t, subspace(pred.x0, mask).astype(pred.x0.dtype), pred.aux)
