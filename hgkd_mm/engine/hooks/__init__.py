"""Hooks: evaluation while training, and safety."""
