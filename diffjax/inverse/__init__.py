"""Posterior sampling: what was seen of a sample, and the laws of what it was; one method a file."""

__all__ = []
