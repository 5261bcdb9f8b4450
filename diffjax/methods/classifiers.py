"""The recipe of classifiers of noisy data, by which samples are guided."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import guidance, keys
from diffjax.contracts import Data, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.kinds import Kind
from diffjax.losses.denoising import started
from diffjax.losses.times import uniform
from diffjax.methods.parts import Parts
from diffjax.prediction import apply_net
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.train.roles import Method, Phase

__all__ = ['classifier']


def classifier(parts: Parts, experts: int = 1) -> Method:
  """A classifier of noisy data, log p(label | x_t): it guides another run's samples and draws none itself.

      - log softmax(f(x_t, t))_label    or, with a teacher f*,    KL(softmax f*(x0, 0) | softmax f(x_t, t))

  arXiv:2011.13456 app. I, arXiv:2105.05233; with experts and a teacher PPAP, arXiv:2212.05973

  The logits are the network's output, averaged over all axes but the last, `net.out_channels` of them; the label is not
  told. Experts are so many copies of the network, the k-th for times of [k, k + 1) t_max / experts. With
  `config.teacher.run`, a classifier's run, no label is read: with samples of a diffusion model as data (npz of
  `diffjax sample --seeds`) experts are then trained without data.

  Guide by it: `config.sampling.guidance = (dict(name='classifier_guidance', run=WORKDIR, scale=2.),)`.

  Args:
    parts: with labels.
    experts: how many; the batch must be a multiple.

  Raises:
    InputError: no labels, several modalities, no experts, a network of another number of outputs, or a teacher that is
      no classifier.
  """
  if isinstance(parts.shape, dict) or not parts.classes:
    raise InputError(f'got classifier for data of shape {parts.shape} with {parts.classes} classes; allowed: one '
                     'shape, with labels')  # fmt: skip
  if experts < 1:
    raise InputError(f'experts: got {experts}; allowed: a whole number of at least 1')
  out = jax.eval_shape(lambda key: _output(parts, key), jax.random.key(0)).shape
  if out[-1] != parts.classes:
    raise InputError(f'net.out_channels: got {out[-1]} outputs; allowed with {parts.classes} classes: {parts.classes}')
  source = parts.source('teacher') if parts.teacher else None
  if source and not source.classifier:
    raise InputError(f'teacher: got {source.name}, which is no classifier; allowed: a run of method classifier')

  def init(key: Array) -> dict[str, Params]:
    ks = jax.random.split(key, experts)
    return {'student': jax.vmap(parts.init)(ks) if experts > 1 else parts.init(key)}

  def read(roles: Mapping[str, Any]) -> Any:
    logits = Logits(parts.process, parts.kind, net=parts.net)
    if experts > 1:
      return guidance.experts(logits, roles['student'], parts.process.t_max)
    return jax.tree_util.Partial(logits, roles['student'])

  def loss(roles: dict[str, Any], batch: Any, key: KeyBatch) -> tuple[Array, dict[str, Array]]:
    own = keys.per_sample(key, len(batch['x']))
    x0, eps, t, _, _ = started(parts.process, uniform(), {'x': batch['x']}, own)
    if experts == 1:
      out = read(roles)(parts.process.perturb(x0, eps, t), t)
    else:
      t, out = _of_each(roles['student'], x0, eps, t)
    if source and source.classifier:
      want = jax.nn.log_softmax(source.classifier(roles['teacher'])(x0, jnp.zeros_like(t)), -1)
      want = jax.lax.stop_gradient(want)
      values = jnp.sum(jnp.exp(want) * (want - jax.nn.log_softmax(out, -1)), -1)
    else:
      values = -jnp.take_along_axis(jax.nn.log_softmax(out, -1), batch['cond'][:, None], 1)[:, 0]
    return values, {'t': t, 'error': values}

  def _of_each(params: Params, x0: Array, eps: Array, t: Array) -> tuple[Array, Array]:
    """Rows k, k + N, .. are expert k's, at times of its own range: the times, and the logits."""
    if len(t) % experts:
      raise InputError(f'train.batch: got {len(t)}; allowed with {experts} experts: a multiple of it')
    place = jnp.arange(len(t)) % experts
    t = jnp.maximum((place + t / parts.process.t_max) / experts * parts.process.t_max, parts.process.t_min)
    rows = jax.tree.map(
      lambda a: jnp.swapaxes(a.reshape(-1, experts, *a.shape[1:]), 0, 1), (parts.process.perturb(x0, eps, t), t)
    )
    out = jax.vmap(Logits(parts.process, parts.kind, net=parts.net))(params, *rows)
    return t, jnp.swapaxes(out, 0, 1).reshape(len(t), -1)

  return Method(
    (Phase('student', loss, parts.optimiser()),),
    init=init,
    loads=('teacher',) if source and jax.tree.leaves(source.params) else (),
    classifier=read,
  )


class Logits(PyTree):
  """(params, x, t) -> (B, C): a network's output, averaged over all axes but the last; t = 0 is the least it knows."""

  process: Process
  kind: Kind
  net: Any = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, params: Params, x: Data, t: Array) -> Array:
    """The logits at x = x_t."""
    t = jnp.maximum(t, self.process.t_min)
    out = apply_net(self.net, params, self.process, self.kind, x, t)
    return jnp.mean(out.reshape(len(out), -1, out.shape[-1]), 1).astype(jnp.float32)


def _output(parts: Parts, key: Array) -> Array:
  x, t, _ = parts.inputs(1)
  net: Any = parts.net
  return net(parts.init(key), x, t)
