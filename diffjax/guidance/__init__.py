"""Guidance: transforms Denoiser -> Denoiser, which compose by calling."""

from diffjax.guidance.classifier import classifier_guidance
from diffjax.guidance.free import branches, cfg
from diffjax.guidance.thresholds import dynamic_threshold, threshold
from diffjax.guidance.transform import chain, cost

__all__ = ['branches', 'cfg', 'chain', 'classifier_guidance', 'cost', 'dynamic_threshold', 'threshold']
