"""The whole H-GKD step, as it is usually done and as it is done here, and its parts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.models.outputs import StudentOutput
from hgkd_mm.sparse import SparseFeatureMap, sparsify
from hgkd_mm.utils.launch import override

from .encoder import autocast, backward_of_sum
from .profile import add_waits
from .report import Stage, Table
from .timing import Settings, measure, step_row

_TO_112 = {'neck.out_stride': 2}
_BF16 = {'teachers.mim.dtype': 'bfloat16'}
_VISIBLE = {'teachers.mim.teacher_view': 'visible'}
# Ways to take a step: what each computes differently, and the options of the model.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    'as today': ('reference', {'engine': 'masked_dense', **_TO_112}),
    'tiles': ('exact', _TO_112),
    'tiles, bf16 teacher': ('targets rounded', {**_TO_112, **_BF16}),
    'tiles, out_stride 16': ('smaller decoder', {}),
    '  and bf16 teacher': ('smaller decoder, targets rounded', _BF16),
    '  and visible view': ('smaller decoder, other targets', _VISIBLE),
    '  and both': ('smaller decoder, other targets, rounded', {**_VISIBLE, **_BF16}),
}


def build_models(
    variants: Iterable[str], config: Path, settings: Settings, vit: str | dict = 'base'
) -> dict[str, nn.Module]:
    """The config's model for each variant by name, with a teacher ``mim`` of random weights.

    ``vit`` is its size, as mmpretrain's ``VisionTransformer`` takes it.
    """
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = random_teacher(Path(folder), vit)
        for name in variants:
            whole = Config.fromfile(config)
            override(whole, {f'model.{k}': v for k, v in VARIANTS[name][1].items()})
            whole.model.teachers.mim.checkpoint = str(weights)
            whole.model.mask.ratio = settings.mask_ratio
            model = MODELS.build(whole.model)
            model.train()
            models[name] = model.to(settings.device, memory_format=torch.channels_last)
    return models


def random_teacher(folder: Path, vit: str | dict = 'base') -> Path:
    """A file of random weights of a ViT/16 of the given size, as ``MIMTeacher`` reads them."""
    path = folder / 'vit.pth'
    teacher = VisionTransformer(vit, patch_size=16, out_type='raw')
    torch.save({f'backbone.{k}': v for k, v in teacher.state_dict().items()}, path)
    return path


def whole_step(
    model: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """Teacher, student, decoder and losses of (B, 3, H, W) images, and the gradient.

    The optimizer is left out: it costs every variant the same.
    """

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(dtype, images.device.type):
            losses = model.loss(images)
        sum(losses.values()).backward()

    return run


def step_parts(
    model: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32
) -> dict[str, Callable[[], None]]:
    """The parts of a step, each with its own gradient, on inputs made once.

    Returns:
        'student' (mask, sparse encoder), 'decoder', 'teacher', 'loss'. Their sum misses what
        gradients of shared maps cost to add.
    """
    mask = model.draw_mask(images)

    def cast() -> AbstractContextManager:
        return autocast(dtype, images.device.type)

    with torch.no_grad(), cast():
        targets = {name: teacher(images, mask) for name, teacher in model.teachers.items()}
        maps = model.backbone(sparsify(images, mask, model.engine))
        decoded = model.neck(maps)

    def student() -> None:
        model.zero_grad(set_to_none=True)
        with cast():
            out = model.backbone(sparsify(images, model.draw_mask(images), model.engine))
        backward_of_sum([m.data for m in out])

    def decoder() -> None:
        model.zero_grad(set_to_none=True)
        with cast():
            out = model.neck([_leaf(m) for m in maps])
        backward_of_sum([out])

    def teacher() -> None:
        with cast():
            for one in model.teachers.values():
                one(images, mask)

    def loss() -> None:
        model.zero_grad(set_to_none=True)
        leaves = tuple(_leaf(m) for m in maps)
        output = StudentOutput(
            images=images, mask=mask, maps=leaves, decoded=decoded.detach().requires_grad_()
        )
        with cast():
            losses = [head(output, targets[head.teacher]) for head in model.heads.values()]
        sum(losses).backward()

    return {'student': student, 'decoder': decoder, 'teacher': teacher, 'loss': loss}


def measure_step(stage: Stage, settings: Settings, config: Path, vit: str | dict = 'base') -> None:
    """The whole H-GKD step of a config by variant, without data and optimizer, and its parts."""
    models, images = build_models(VARIANTS, config, settings, vit), settings.images()
    wholes = {name: whole_step(model, images, settings.dtype) for name, model in models.items()}
    title, reference = f'{config.stem}, {settings.title}', next(iter(VARIANTS))
    table = stage.table(f'Whole step, {title}')
    for result in measure(wholes, settings, reference):
        row = step_row(result, wholes[result.name], settings, reference)
        table.rows.append({**row, 'differs by': VARIANTS[result.name][0]})
    parts = stage.table(f'Parts of the step, each alone, ms; {title}')
    few = replace(settings, rounds=min(3, settings.rounds))
    for name, model in models.items():
        if stage.out_of_time(f'the parts of {name.strip()} and later ones'):
            break
        timed = measure(step_parts(model, images, settings.dtype), few, 'student')
        times = {result.name: 1000 * result.median for result in timed}
        parts.rows.append({'step': name, **times})


def add_step_waits(table: Table, settings: Settings, config: Path, vit: str | dict) -> None:
    """Waits of the whole step, with a teacher that sees all and one that sees the visible."""
    variants = ('tiles, out_stride 16', '  and visible view')
    images = settings.images()
    for name, model in build_models(variants, config, settings, vit).items():
        run = whole_step(model, images, settings.dtype)
        run()
        add_waits(table, name, run)


def _leaf(x: SparseFeatureMap) -> SparseFeatureMap:
    return x.pointwise(lambda values: values.detach().requires_grad_())
