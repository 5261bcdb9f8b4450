"""Tables of people: features, an outcome, and an attribute that should not have decided it."""

import numpy as np

from diffjax.data.dataset import Arrays, DataSet
from diffjax.data.options import check_made, number
from diffjax.data.seeds import of_split

__all__ = ['biased_table']


def biased_table(split: str, leakage: float = 0.8, bias: float = 0.5, n: int = 2**14, seed: int = 0) -> DataSet:
  """Rows (6,) whose outcome depends on merit and, unfairly, on an attribute which some features give away.

  The attribute s is -1 or 1, evenly, and a merit m normal. The outcome is 1 with probability
  sigmoid(3 m + 2 bias s): it is `cond`, and s is 'sensitive' (1,). Features 0 to 2 are m and noise of deviation .5,
  features 3 and 4 are leakage s + sqrt(1 - leakage^2) noise, feature 5 is noise.

  Args:
    split: train or test.
    leakage: the correlation of features 3 and 4 with s, 0 up to 1.
    bias: of the outcome, 0 for none.
    n: rows, independent.
    seed: of the rows.
  """
  check_made(split, n, seed)
  number('data.leakage', leakage, 0, 1)
  number('data.bias', bias, 0)
  rng = of_split(seed, 'biased_table', split)
  s, m, noise = rng.choice([-1.0, 1.0], (n, 1)), rng.standard_normal((n, 1)), rng.standard_normal((n, 6))
  outcome = rng.uniform(size=n) < 1 / (1 + np.exp(-(3 * m + 2 * bias * s)[:, 0]))
  x = np.concatenate([m + 0.5 * noise[:, :3], leakage * s + (1 - leakage**2) ** 0.5 * noise[:, 3:5], noise[:, 5:]], 1)
  arrays = Arrays(x.astype(np.float32), outcome.astype(np.int32), {'sensitive': s.astype(np.float32)})
  return DataSet('biased_table', arrays, (6,), 2, others={'sensitive': (1,)})
