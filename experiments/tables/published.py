"""What the papers print for their solvers, and what a run of ours needs to stand beside it."""

__all__ = ['published']

CIFAR_SDE = 'ScoreSDE CIFAR-10 DDPM++ cont. (VP), checkpoint_8.pth'
CIFAR_LS = 'Analytic-DPM CIFAR-10 (LS) pretrained, ema.pth'
CIFAR_EDM = 'EDM edm-cifar10-32x32-uncond-vp.pkl'
NONE = ''
ROWS = (
  # method, data, evaluations, FID as printed, checkpoint, statistics
  ('DPM-Solver-3', 'CIFAR-10', '10 / 12 / 20', '4.70 / 3.75 / 2.87', CIFAR_SDE, NONE),
  ('DEIS tAB3', 'CIFAR-10', '10 / 15', '4.17 / 3.37', CIFAR_SDE, NONE),
  ('UniPC-3', 'CIFAR-10', '10', '3.87', CIFAR_SDE, NONE),
  ('DPM-Solver-v3', 'CIFAR-10', '5 / 10', '12.21 / 2.51', CIFAR_EDM, 'linear.npz: l, s, b at 1200 knots'),
  ('EDM Heun', 'CIFAR-10', '35', '1.97', CIFAR_EDM, NONE),
  ('EDM Heun with churn', 'ImageNet-64', '511', '1.36', 'EDM edm-imagenet-64x64-cond-adm.pkl', NONE),
  ('EDM Heun with teleportation', 'CIFAR-10', 'about 25', '1.93', CIFAR_EDM, 'gaussian.npz: mean and covariance'),
  ('Analytic-DDPM / -DDIM', 'CIFAR-10', '10', '34.26 / 14.00', CIFAR_LS, 'energies.npz: Gamma at 1000 times'),
  ('SN-DDPM / SN-DDIM', 'CIFAR-10', '10', '24.06 / 12.19', CIFAR_LS, 'the trained second head'),
  ('predictor-corrector', 'CIFAR-10', '2000', '2.41 (VP), 2.20 (VE)', CIFAR_SDE, NONE),
  ('USF search', 'CIFAR-10', '5 / 10', '6.86 / 2.69', CIFAR_SDE, 'a solver file of diffjax search'),
  ('AutoDiffusion', 'ImageNet-64', '4', '17.86 (DDIM 138.66)', 'ADM 64x64_diffusion.pt', 'a solver file'),
)


def published() -> str:
  """Markdown: the printed figures, and the files needed; nothing of it is measured here."""
  lines = ['| method | data | evaluations | FID, as printed | checkpoint | statistics | here |', '|' + '---|' * 7]
  lines += ['| ' + ' | '.join((*row, 'not run: no checkpoint')) + ' |' for row in ROWS]
  return '\n'.join(lines)
