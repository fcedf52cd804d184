"""What is wrong with a machine, its packages or a config, and what to do about it."""

from .examine import examine, look_at_config
from .section import Section

__all__ = ['Section', 'examine', 'look_at_config']
