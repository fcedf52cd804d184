"""What is wrong with a machine, its packages or a config, and how to repair it."""

from .report import Section, examine

__all__ = ['Section', 'examine']
