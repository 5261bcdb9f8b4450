"""What passes from room to room: types by name, and what each dict may hold.

    Data      x, x0, eps, and a sample: (B, ...) floats, or a dict of modalities {name: (B, ...)}; one float dtype
    Time      t, s, u in the process's own time, 0 the data: a number, (B,), or a dict of them, one a modality
    Cond      what is known of each sample, the batch first: labels (B,) integers, or a pytree; None without. The U-Net
              takes {'label': labels or None, 'augment': (B, 9)} too, where it was trained on augmented images
    Params    the weights of one role: a dict of the network's own, and beside them, where there are any,
              'uncertainty' (`losses.uncertainty`) and 'hooks' (`nets.hooks`: what attentions are given)
    Memory    what a denoiser wants to see at its next evaluation, the batch first; None before the first
    KeyBatch  (B,) typed keys, one a sample (`diffjax.keys`)

A batch of training data is a dict: 'x' Data, 'cond' Cond where there are conditions, 'augment' (B, 9) where images were
augmented, and what else a method needs by name.

The `aux` of a prediction (`prediction.Pred`) is () or a dict: 'memory' Memory; 'eps', the noise that moments belong to,
with 'eps2', 'eps3', 'residual2' like x (`guidance.moment_heads`); 'weight_rate' (B,), what the log-weights of particles
grow by per unit of reverse time (`guidance.mix`); 'conditional', the prediction under the condition alone
(`guidance.cfg`); feature taps by their names.
"""

from typing import Any

from jax import Array

__all__ = ['Cond', 'Data', 'KeyBatch', 'Memory', 'Params', 'Time']

Data = Any
Time = Any
Cond = Any
Params = Any
Memory = Any
KeyBatch = Array
