"""Networks, the only nn.Modules of the library: functions (params, x, t, cond, key) -> array that know no schedule."""

from .apply import Apply
from .mlp import MLP, mlp
from .unet import UNet, unet

__all__ = ['mlp', 'unet', 'Apply', 'MLP', 'UNet']
