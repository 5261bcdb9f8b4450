"""What a generative model knows of a sample: codes, classes, anomalies, units; one method a file."""

from diffjax.represent.anomaly import (
  DeepKernel,
  MedianKernel,
  anomaly,
  auroc,
  expected_score,
  fit_kernel,
  median_kernel,
  mmd2,
)
from diffjax.represent.classifier import Accuracy, Classified, accuracy, diffusion_classifier
from diffjax.represent.dissect import Editable, Label, causal_effect, causal_units, dissect, editable
from diffjax.represent.encoder import Code, Translated, decode, encode, translate
from diffjax.represent.explained import Explained, candidates, explained
from diffjax.represent.inversion import inversion, reconstructed
from diffjax.represent.latents import Guided, Latent, guided_codes, latent
from diffjax.represent.painters import gaussian_response, response

__all__ = [
  'Accuracy',
  'Classified',
  'Code',
  'DeepKernel',
  'Editable',
  'Explained',
  'Guided',
  'Label',
  'Latent',
  'MedianKernel',
  'Translated',
  'accuracy',
  'anomaly',
  'auroc',
  'candidates',
  'causal_effect',
  'causal_units',
  'decode',
  'diffusion_classifier',
  'dissect',
  'editable',
  'encode',
  'expected_score',
  'explained',
  'fit_kernel',
  'gaussian_response',
  'guided_codes',
  'inversion',
  'latent',
  'median_kernel',
  'mmd2',
  'reconstructed',
  'response',
  'translate',
]
