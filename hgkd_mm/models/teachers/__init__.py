"""Frozen teachers."""

from .base import BaseTeacher, FrozenTeachers
from .mim_teacher import MIMTeacher
from .timm_teacher import TIMMTeacher

__all__ = ['BaseTeacher', 'FrozenTeachers', 'MIMTeacher', 'TIMMTeacher']
