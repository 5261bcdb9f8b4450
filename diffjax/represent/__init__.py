"""What a generative model knows of a sample: codes, classes, anomalies, units; one method a file."""

__all__ = []
