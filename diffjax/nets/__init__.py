"""Networks, the only nn.Modules of the library: functions (params, x, t, cond, key) -> array that know no schedule."""

from .apply import Apply
from .dit import DiT, dit
from .edm2 import EDM2, edm2
from .egnn import EGNN, egnn
from .mlp import MLP, mlp
from .s4 import S4, s4
from .unet import UNet, unet
from .unidiffuser import UniDiffuser, unidiffuser
from .uvit import UViT, uvit

__all__ = [
  'dit',
  'edm2',
  'egnn',
  'mlp',
  's4',
  'unet',
  'unidiffuser',
  'uvit',
  'Apply',
  'DiT',
  'EDM2',
  'EGNN',
  'MLP',
  'S4',
  'UNet',
  'UniDiffuser',
  'UViT',
]
