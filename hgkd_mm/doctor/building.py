"""Building what a config trains."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from hgkd_mm.utils.files import is_remote
from hgkd_mm.weights.reading import cached

from .section import Section
from .walk import nodes


def look_at_build(section: Section, config: Config) -> nn.Module | None:
    """Builds the model and its optimizer on the CPU, unless a teacher would have to be fetched.

    Args:
        section: Is added to.
        config: With its default scope set.

    Returns:
        The model, with random weights; None if it was not built.

    Raises:
        Exception: What building raises.
    """
    absent = [
        key
        for key, node in nodes(config.get('model'), 'model')
        if node.get('type') != 'Pretrained' and not _is_there(node.get('checkpoint'))
    ]
    if absent:
        section.notes.append(f'The model was not built: the weights of {absent[0]} are not here.')
        return None
    model = MODELS.build(config.model)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    section.facts.append(('model', f'{type(model).__name__} is built, {weights:.1f} M weights'))
    if config.get('optim_wrapper'):
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
        groups = len(wrapper.optimizer.param_groups)
        name = type(wrapper.optimizer).__name__
        section.facts.append(('optimizer', f'{name} is built, {groups} parameter groups'))
    return model


def _is_there(checkpoint: object) -> bool:
    if not isinstance(checkpoint, str):
        return True
    return cached(checkpoint).is_file() if is_remote(checkpoint) else Path(checkpoint).is_file()
