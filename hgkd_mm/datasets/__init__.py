"""Data sets of H-GKD pre-training."""
