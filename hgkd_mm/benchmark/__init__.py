"""Honest timing: ratios against a reference, measured in turn in one process."""

from .encoder import EncoderSteps, encoder_steps
from .timing import Measurement, measure, saved_bytes, versions

__all__ = ['EncoderSteps', 'Measurement', 'encoder_steps', 'measure', 'saved_bytes', 'versions']
