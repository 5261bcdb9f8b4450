"""What a generative model knows of a sample: codes, classes, anomalies, units; one method a file."""

from diffjax.represent.classifier import Accuracy, Classified, accuracy, diffusion_classifier
from diffjax.represent.encoder import Code, Translated, decode, encode, translate
from diffjax.represent.inversion import inversion, reconstructed
from diffjax.represent.latents import Guided, Latent, guided_codes, latent

__all__ = [
  'Accuracy',
  'Classified',
  'Code',
  'Guided',
  'Latent',
  'Translated',
  'accuracy',
  'decode',
  'diffusion_classifier',
  'encode',
  'guided_codes',
  'inversion',
  'latent',
  'reconstructed',
  'translate',
]
