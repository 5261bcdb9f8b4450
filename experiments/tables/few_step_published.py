"""What the papers print for their few-step methods, and whether their order holds here."""

from collections.abc import Mapping, Sequence
from itertools import combinations

__all__ = ['IN_WORDS', 'ROWS', 'published', 'ranking']

ROWS = (
  # recipe of diffjax.fewstep, paper, data, steps, as printed
  ('progressive', 'Progressive distillation', 'CIFAR-10 FID', (1, 2, 4, 8), (9.12, 4.51, 3.00, 2.57)),
  ('consistency_distillation', 'Consistency models, distilled', 'CIFAR-10 FID', (1, 2), (3.55, 2.93)),
  ('consistency_training', 'Consistency models, trained', 'CIFAR-10 FID', (1, 2), (8.70, 5.83)),
  ('improved_consistency_training', 'iCT', 'CIFAR-10 FID', (1, 2), (2.51, 2.24)),
  ('improved_consistency_training', 'iCT', 'ImageNet-64 FID', (1, 2), (3.25, 2.77)),
  ('consistency_trajectory', 'CTM (with its discriminator)', 'CIFAR-10 FID', (1,), (1.73,)),
  ('consistency_trajectory', 'CTM (with its discriminator)', 'ImageNet-64 FID', (1,), (1.92,)),
  ('continuous_consistency', 'sCM, trained', 'CIFAR-10 FID', (1, 2), (2.85, 2.06)),
  ('mean_flow', 'MeanFlow', 'ImageNet-256 FID', (1,), (3.43,)),
  ('diffusion_gan', 'Denoising diffusion GANs', 'CIFAR-10 FID', (4,), (3.75,)),
  ('distribution_matching', 'DMD', 'ImageNet-64 FID', (1,), (2.62,)),
  ('distribution_matching_2', 'DMD2', 'ImageNet-64 FID', (1,), (1.28,)),
  ('distil_back', 'DisBack', 'ImageNet-64 FID', (1,), (1.38,)),
  ('em_distillation', 'EM distillation', 'ImageNet-64 FID', (1,), (2.20,)),
  ('multi_student', 'Multi-student distillation, 4 students', 'ImageNet-64 FID', (1,), (1.20,)),
)
IN_WORDS = (
  # recipe, paper, what is printed
  ('prodiff', 'ProDiff', '2 steps, 24 x real time on one 2080Ti'),
  ('guided', 'On distillation of guided diffusion models', '4 steps as good as the teacher, ImageNet-64 and CIFAR-10'),
  ('reflow', 'InstaFlow', 'MS COCO 2017 FID-5k 23.4 at one step'),
  ('stochastic_consistency', 'SCott', 'MS COCO 2017 FID-5k 22.1 (one-step InstaFlow 23.4)'),
  ('latent_consistency', 'Latent consistency models', 'guided teachers in 1 to 4 steps'),
  ('reward_guided_latent_consistency', 'Reward-guided LCD', '2 steps preferred to 50 of the teacher by DDIM'),
  ('rl_consistency', 'RLCM', 'as few as 2 steps'),
  ('consistency_trajectory', 'Analytic-Precond', 'CTM of several steps trained 2 to 3 times faster'),
  ('blockwise_flow_matching', 'Blockwise flow matching', 'ImageNet-256: 2.1 to 4.9 times less computation'),
  ('consistency_bridge_distillation', 'Consistency diffusion bridges', '4 to 50 times faster than the bridge'),
  ('key_points', 'AccVideo', '8.5 times faster than the teacher'),
  ('self_forcing', 'Self-Forcing++', 'up to 20 times the length of the teacher'),
  ('time_aware_super_resolution', 'TAD-SR', '1 step as good as the teacher or better'),
)


def published() -> str:
  """Markdown: the printed figures; nothing of it is measured here."""
  lines = ['| recipe | paper | data | steps | as printed |', '|' + '---|' * 5]
  for recipe, paper, data, steps, values in ROWS:
    shown = ' / '.join(f'{value:.2f}' for value in values)
    lines.append(f'| {recipe} | {paper} | {data} | {" / ".join(map(str, steps))} | {shown} |')
  lines += [f'| {recipe} | {paper} | | | {words} |' for recipe, paper, words in IN_WORDS]
  return '\n'.join(lines)


def ranking(measured: Mapping[tuple[str, int], float], what: str) -> list[str]:
  """Lines: for every data set and number of steps in print, the pairs of methods whose order is the same here.

  Args:
    measured: (recipe, steps) -> a figure that is lower for the better.
    what: the figure, in words.
  """
  places: dict[tuple[str, int], dict[str, float]] = {}
  for recipe, _, data, steps, values in ROWS:
    for n, value in zip(steps, values, strict=True):
      if (recipe, n) in measured:
        places.setdefault((data, n), {})[recipe] = value
  lines = []
  for (data, n), printed in sorted(places.items()):
    pairs = list(combinations(sorted(printed, key=lambda recipe: printed[recipe]), 2))
    if not pairs:
      continue
    kept = [pair for pair in pairs if measured[pair[0], n] < measured[pair[1], n]]
    lines.append(f'{data} @ {n}: {len(kept)} of {len(pairs)} pairs are in this order by {what} here'
                 f'{_turned(pairs, kept)}')  # fmt: skip
  return lines


def _turned(pairs: Sequence[tuple[str, str]], kept: Sequence[tuple[str, str]]) -> str:
  turned = [f'{better} before {worse}' for better, worse in pairs if (better, worse) not in kept]
  return f'; not: {", ".join(turned)}' if turned else '; all of them'
