"""The forward pass of `diffjax.nets.unet` in PyTorch, from the same parameters: the other side of `bench.cpu`."""

from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

from diffjax.nets.layers import groups_of

__all__ = ['unet', 'weights']


def weights(params: dict[str, Any], layout: torch.memory_format) -> dict[str, Any]:
  """The parameters as tensors that require gradients, kernels in the order of PyTorch's layers."""
  made = {}
  for name, value in params.items():
    if isinstance(value, dict):
      made[name] = weights(value, layout)
      continue
    leaf = torch.tensor(value)
    if name == 'kernel' and leaf.ndim == 4:
      leaf = leaf.permute(3, 2, 0, 1).contiguous(memory_format=layout)
    elif name == 'kernel' and leaf.ndim == 2:
      leaf = leaf.T.contiguous()
    made[name] = leaf.requires_grad_()
  return made


def unet(p: dict[str, Any], x: torch.Tensor, t: torch.Tensor, width: int, levels: tuple, blocks: int, places: tuple):
  """The output (B, C, H, W) for x (B, C, H, W) and t (B,); sizes as in `nets.unet`, attention at heights `places`."""
  half = width // 2
  angle = t[:, None] * torch.tensor(10000.0) ** (-torch.arange(half) / (half - 1))
  temb = torch.cat([angle.sin(), angle.cos()], -1)
  temb = F.silu(_dense(p['time_1'], F.silu(_dense(p['time_0'], temb))))
  h = _conv(p['in'], x)
  skips = [h]
  for i in range(len(levels)):
    for j in range(blocks):
      h = _residual(p[f'down{i}_{j}'], h, temb)
      h = _attention(p[f'down{i}_{j}_attention'], h) if h.shape[2] in places else h
      skips.append(h)
    if i < len(levels) - 1:
      h = _residual(p[f'down{i}_half'], h, temb, lambda a: F.avg_pool2d(a, 2))
      skips.append(h)
  h = _attention(p['middle_attention'], _residual(p['middle_0'], h, temb))
  h = _residual(p['middle_1'], h, temb)
  for i in reversed(range(len(levels))):
    for j in range(blocks + 1):
      h = _residual(p[f'up{i}_{j}'], torch.cat([h, skips.pop()], 1), temb)
      h = _attention(p[f'up{i}_{j}_attention'], h) if j == blocks and h.shape[2] in places else h
    if i > 0:
      h = _residual(p[f'up{i}_double'], h, temb, lambda a: F.interpolate(a, scale_factor=2, mode='nearest'))
  return _conv(p['out'], F.silu(_norm(p['norm'], h)))


def _residual(p, x, temb, change=None):
  h = F.silu(_norm(p['norm_0'], x))
  if change:
    h, x = change(h), change(x)
  h = _conv(p['conv_0'], h) + _dense(p['time'], temb)[:, :, None, None]
  h = _conv(p['conv_1'], F.silu(_norm(p['norm_1'], h)))
  return ((_conv(p['skip'], x) if 'skip' in p else x) + h) * 0.5**0.5


def _attention(p, x):
  b, c, rows, columns = x.shape
  h = _norm(p['norm'], x).flatten(2).transpose(1, 2)
  q, k, v = (h @ p['qkv']['kernel'].reshape(c, 3 * c) + p['qkv']['bias'].reshape(-1)).chunk(3, -1)
  h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
  h = _dense(p['out'], h).transpose(1, 2).reshape(b, c, rows, columns)
  return (x + h) * 0.5**0.5


def _norm(p, x):
  return F.group_norm(x, groups_of(x.shape[1]), p['scale'], p['bias'], 1e-6)


def _conv(p, x):
  return F.conv2d(x, p['kernel'], p['bias'], padding=p['kernel'].shape[-1] // 2)


def _dense(p, x):
  return F.linear(x, p['kernel'], p['bias'])
