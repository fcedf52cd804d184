"""The network to inspect, with its weights: the backbone of a config, or one of its teachers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from hgkd_mm.models import HGKD
from hgkd_mm.weights.fit import load_whole
from hgkd_mm.weights.reading import BACKBONE, read_tensors

from .images import InputFormat


class LoadedNetwork(NamedTuple):
    """A network with its weights."""

    network: nn.Module
    title: str  # source of the weights and type of the network
    input_format: InputFormat


def load_student(
    config: Config, checkpoint: str, *, whole: bool = False, trust_checkpoint: bool = False
) -> LoadedNetwork:
    """The config's ``model.backbone``, or the whole model, with all weights of a checkpoint.

    The checkpoint may be of the model or of a bare backbone, of which names whose first part the
    network does not have, as ``fc``, are not used.

    Raises:
        OSError, RuntimeError: the checkpoint cannot be read.
        ValueError: a weight is missing, unexpected or of another shape.
    """
    weights = read_tensors(checkpoint, key='argument CHECKPOINT', trusted=trust_checkpoint)
    if whole:
        preprocessor = config.get('data_preprocessor')
        network = _build(config, {'data_preprocessor': preprocessor, **config.model})
        wrong = (
            f'{checkpoint} was not made with this config (give the config of its run, or '
            '--backbone to look at the backbone alone)'
        )
    else:
        network = _build(config, config.model.backbone)
        weights = _backbone_weights(weights, network)
        wrong = f'{checkpoint} is of another network than model.backbone of the config'
    load_whole(network, weights, what=wrong)
    title = f'{checkpoint} ({type(network).__name__})'
    return LoadedNetwork(network, title, InputFormat.of(config))


def load_teacher(config: Config, name: str) -> LoadedNetwork:
    """A teacher in ``model.teachers`` with its own weights, which sees whole images.

    Raises:
        OSError, RuntimeError: its checkpoint cannot be read, or does not fit.
        ValueError: there is no such teacher, or a setting of it is wrong.
    """
    teachers = config.model.get('teachers') or {}
    if name not in teachers:
        raise ValueError(
            f'--teacher {name}: {config.filename} has {", ".join(teachers) or "nothing"} under '
            'model.teachers; name one of these.'
        )
    teacher = _build(config, {**teachers[name], 'teacher_view': 'full'})
    return LoadedNetwork(
        network=teacher,
        title=f"teacher '{name}', {teachers[name].get('checkpoint')} ({type(teacher).__name__})",
        # not matched to the student's: it takes its own
        input_format=InputFormat(mean=teacher.mean, std=teacher.std, rgb=True),
    )


def is_hgkd(config: Config) -> bool:
    """Whether the type of the model is ``HGKD`` or a subclass of it."""
    with _scope(config), MODELS.switch_scope_and_registry(None) as registry:
        kind = registry.get(config.model.type)
    return isinstance(kind, type) and issubclass(kind, HGKD)


def run_whole(network: nn.Module, images: Tensor) -> Any:
    """A backbone's or teacher's output for whole images (B, 3, H, W), normalized."""
    # mmpretrain's pre-training networks mask at random by default
    masks = 'mask' in inspect.signature(network.forward).parameters
    return network(images, mask=None) if masks else network(images)


def _backbone_weights(tensors: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    prefixed = {k.removeprefix(BACKBONE): v for k, v in tensors.items() if k.startswith(BACKBONE)}
    parts = {name.split('.')[0] for name in backbone.state_dict()}
    return prefixed or {k: v for k, v in tensors.items() if k.split('.')[0] in parts}


def _build(config: Config, settings: Mapping[str, Any]) -> nn.Module:
    with _scope(config):
        return MODELS.build(dict(settings))


def _scope(config: Config) -> Any:
    return DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmpretrain')
