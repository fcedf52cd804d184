"""The network that is analysed: the backbone of a config, or one of its teachers."""

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
from hgkd_mm.visualization.fitted_weights import load_backbone, read_tensors
from hgkd_mm.visualization.input_format import InputFormat


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with its weights.

    Attributes:
        network: the backbone or the teacher.
        title: what it is and where its weights are from, in a few words.
        weights: sentence about the weights that were loaded.
        input_format: how its images are normalised.
    """

    network: nn.Module
    title: str
    weights: str
    input_format: InputFormat

    def blocks(self) -> Sequence[nn.Module]:
        """The attention blocks that run, in order.

        Raises:
            TypeError: the network has none.
        """
        if isinstance(self.network, BaseTeacher):
            return self.network.blocks()
        return attention_blocks(self.network)

    def run(self, images: Tensor) -> Any:
        """What the network says of whole images (B, 3, H, W), normalised."""
        # mmpretrain's pre-training networks mask at random unless they are told not to
        masks = 'mask' in inspect.signature(self.network.forward).parameters
        return self.network(images, mask=None) if masks else self.network(images)


def load_student(config: Config, checkpoint: str, *, trust_checkpoint: bool = False) -> Subject:
    """The config's ``model.backbone`` with the weights of a checkpoint, all of them.

    Args:
        config: of mmpretrain, mmdet or mmseg.
        checkpoint: path or address of weights of the whole model or of the backbone alone.
        trust_checkpoint: allow the file to run pickled code.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: it cannot be read.
        ValueError: the config has no such backbone, or a weight is missing, unexpected or of
            another shape.
    """
    backbone = (config.get('model') or {}).get('backbone')
    if backbone is None:
        raise ValueError(
            f'{config.filename} has no model.backbone, so there is no network to analyse: give '
            'the config of a training run.'
        )
    tensors = read_tensors(checkpoint, trust_checkpoint=trust_checkpoint)
    network = _build(config, backbone, key='model.backbone')
    fit = load_backbone(network, tensors, source=checkpoint)
    return Subject(
        network=network,
        title=f'{checkpoint} ({type(network).__name__})',
        weights=f'{checkpoint}: {fit.counts()}.',
        input_format=InputFormat.of(config),
    )


def load_teacher(config: Config, name: str) -> Subject:
    """A teacher of the config with its own weights, which sees whole images.

    Args:
        config: of a distillation.
        name: its key in ``model.teachers``.

    Raises:
        FileNotFoundError: its checkpoint is not there.
        RuntimeError: that is damaged or does not fit; nothing is analysed with random weights.
        ValueError: there is no such teacher, or a setting of it is wrong.
    """
    teachers = (config.get('model') or {}).get('teachers') or {}
    if name not in teachers:
        raise ValueError(
            f'--teacher {name}: {config.filename} has {", ".join(teachers) or "nothing"} under '
            'model.teachers; name one of these.'
        )
    settings = {**teachers[name], 'teacher_view': 'full'}
    teacher = _build(config, settings, key=f'model.teachers.{name}')
    if not isinstance(teacher, BaseTeacher):
        raise ValueError(
            f'model.teachers.{name}.type={settings.get("type")!r} gives a '
            f'{type(teacher).__name__}; MIMTeacher and TIMMTeacher can be analysed.'
        )
    kind, source = type(teacher).__name__, settings.get('checkpoint')
    return Subject(
        network=teacher,
        title=f"teacher '{name}', {source} ({kind})",
        # a teacher is not made unless each of its weights is there
        weights=f"{source}: all weights of teacher '{name}' ({kind}).",
        # not matched to the student's: it takes its own
        input_format=InputFormat(mean=teacher.mean, std=teacher.std, rgb=True),
    )


def _build(config: Config, settings: Mapping[str, Any], *, key: str) -> nn.Module:
    scope = config.get('default_scope') or 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope):
        try:
            return MODELS.build(dict(settings))
        except KeyError as error:
            raise ValueError(
                f'{scope} cannot build {key}.type={settings.get("type")!r} ({error}): name the '
                'package that registers it in custom_imports of the config.'
            ) from error
