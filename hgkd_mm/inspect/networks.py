"""The network to inspect: the backbone of a config, or one of its teachers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from hgkd_mm.models.qkv import attention_blocks
from hgkd_mm.models.teachers import BaseTeacher

from .fitted_weights import load_backbone, read_tensors
from .images import InputFormat


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """A backbone or a teacher with its weights."""

    network: nn.Module
    title: str  # source of the weights and type of the network
    weights: str  # sentence about the weights that were loaded
    input_format: InputFormat

    def blocks(self) -> Sequence[nn.Module]:
        """The attention blocks that run, in order; a TypeError if there are none."""
        if isinstance(self.network, BaseTeacher):
            return self.network.blocks()
        return attention_blocks(self.network)

    def run(self, images: Tensor) -> Any:
        """The network's output for whole images (B, 3, H, W), normalized."""
        # mmpretrain's pre-training networks mask at random by default
        masks = 'mask' in inspect.signature(self.network.forward).parameters
        return self.network(images, mask=None) if masks else self.network(images)


def load_student(
    config: Config, checkpoint: str, *, trust_checkpoint: bool = False
) -> LoadedNetwork:
    """The config's ``model.backbone`` with all weights of a checkpoint of it or of the model.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: it cannot be read.
        ValueError: the config has no such backbone, or a weight is missing, unexpected or of
            another shape.
    """
    check_backbone(config)
    tensors = read_tensors(checkpoint, trust_checkpoint=trust_checkpoint)
    network = build_module(config, config.model.backbone, key='model.backbone')
    fit = load_backbone(network, tensors, source=checkpoint)
    return LoadedNetwork(
        network=network,
        title=f'{checkpoint} ({type(network).__name__})',
        weights=f'{checkpoint}: {fit.counts()}.',
        input_format=InputFormat.of(config),
    )


def load_teacher(config: Config, name: str) -> LoadedNetwork:
    """A teacher in ``model.teachers`` with its own weights, which sees whole images.

    Raises:
        FileNotFoundError: its checkpoint does not exist.
        RuntimeError: its checkpoint is damaged or does not fit.
        ValueError: there is no such teacher, or a setting of it is wrong.
    """
    teachers = (config.get('model') or {}).get('teachers') or {}
    if name not in teachers:
        raise ValueError(
            f'--teacher {name}: {config.filename} has {", ".join(teachers) or "nothing"} under '
            'model.teachers; name one of these.'
        )
    settings = {**teachers[name], 'teacher_view': 'full'}
    teacher = build_module(config, settings, key=f'model.teachers.{name}')
    if not isinstance(teacher, BaseTeacher):
        raise ValueError(
            f'model.teachers.{name}.type={settings.get("type")!r} gives a '
            f'{type(teacher).__name__}; MIMTeacher and TIMMTeacher can be analyzed.'
        )
    kind, source = type(teacher).__name__, settings.get('checkpoint')
    return LoadedNetwork(
        network=teacher,
        title=f"teacher '{name}', {source} ({kind})",
        # building a teacher fails unless its checkpoint has all of its weights
        weights=f"{source}: all weights of teacher '{name}' ({kind}).",
        # not matched to the student's: it takes its own
        input_format=InputFormat(mean=teacher.mean, std=teacher.std, rgb=True),
    )


def check_backbone(config: Config) -> None:
    """Refuses a config without ``model.backbone``, with a ValueError."""
    if 'backbone' not in (config.get('model') or {}):
        raise ValueError(
            f'{config.filename} has no model.backbone, so there is no network to inspect: give '
            'the config of a training run.'
        )


def build_module(config: Config, settings: Mapping[str, Any], *, key: str) -> nn.Module:
    """Builds a module in the config's scope; a ValueError names the key of an unknown type."""
    scope = config.get('default_scope') or 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope):
        try:
            return MODELS.build(dict(settings))
        except KeyError as error:
            raise ValueError(
                f'{scope} cannot build {key}.type={settings.get("type")!r} ({error}): name the '
                'package that registers it in custom_imports of the config.'
            ) from error
