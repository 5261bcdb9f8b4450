"""A proxy of a reward: a small network that is trained to prefer as the reward does, and has a gradient.

For each two of some samples a, b with rewards r and proxies l,

    KL(softmax(r_a, r_b) || softmax(l_a, l_b))

arXiv:2403.11027 sec. 4.2
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import nets
from diffjax.contracts import Cond, Params
from diffjax.errors import InputError
from diffjax.methods import Parts
from diffjax.nets import Apply
from diffjax.rewards import Reward

__all__ = ['preference', 'proxy_net', 'value']

NETS = ('dit', 'mlp', 'unet')


def proxy_net(parts: Parts, spec: Any) -> Apply:
  """The network that a dict of a name of `nets` and its options stands for, of one output, or one a pixel.

  Raises:
    InputError: another name, or an option that it does not have.
  """
  options = dict(name=spec) if isinstance(spec, str) else dict(spec)
  name = options.pop('name', None)
  if name not in NETS:
    raise InputError(f'proxy.name: got {name!r}; allowed: {", ".join(NETS)}')
  try:
    return getattr(nets, name)(**(dict(out_channels=1, classes=parts.classes) | options))
  except TypeError:
    raise InputError(f'proxy: got {name} with {", ".join(options)}; allowed: the options of {name}') from None


def value(proxy: Apply, params: Params, x: Array, label: Cond) -> Array:
  """The proxy's reward of samples (B, ...): the mean of what its network says at t = 0, (B,)."""
  out: Any = proxy(params, x, jnp.zeros(len(x)), label)
  return jnp.mean(out.reshape(len(x), -1), -1)


def preference(shown: Callable[..., tuple[Array, ...]], worth: Reward, proxy: Apply) -> Callable:
  """The loss of the role 'proxy': the mean divergence over all pairs of the samples that `shown` gives.

  Args:
    shown: (roles, batch, key) -> several samples (B, ...) of one condition each.
    worth: the reward.
    proxy: the network.
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    label, own = batch.get('cond'), roles['proxy']
    others: Mapping[str, Any] = {role: stop_gradient(roles[role]) for role in roles if role != 'proxy'}
    several = [stop_gradient(x) for x in shown(others, batch, key)]
    told = [(stop_gradient(worth(x, label)), value(proxy, own, x, label)) for x in several]
    pairs = [(r - q, k - p) for (r, k), (q, p) in itertools.combinations(told, 2)]
    agreed = jnp.mean(jnp.stack([(a > 0) == (b > 0) for a, b in pairs]).astype(jnp.float32), 0)
    return jnp.mean(jnp.stack([divergence(a, b) for a, b in pairs]), 0), {'agreed': agreed}

  return loss


def divergence(a: Array, b: Array) -> Array:
  """KL(p || q) of two coins whose log-odds are a and b."""
  p, log = jax.nn.sigmoid(a), jax.nn.log_sigmoid
  return p * (log(a) - log(b)) + (1 - p) * (log(-a) - log(-b))
