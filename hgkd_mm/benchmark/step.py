"""The whole H-GKD step, as it is usually done and as it is done here, and its parts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.utils import import_modules_from_strings
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import Tensor, nn

from hgkd_mm.models.outputs import StudentOutput
from hgkd_mm.sparse import SparseFeatureMap, sparsify
from hgkd_mm.utils.launch import override

from .encoder import autocast, backward_of_sum
from .profile import add_waits
from .report import Report, Stage, milliseconds
from .timing import Settings, measure


@dataclass(frozen=True)
class Variant:
    """One way to take a step: options of the model, and what it computes differently."""

    name: str
    same: str
    options: dict[str, object]


_TO_112 = {'neck.out_stride': 2}
_BF16 = {'teachers.mim.dtype': 'bfloat16'}
_VISIBLE = {'teachers.mim.teacher_view': 'visible'}
VARIANTS = (
    Variant('as today', 'reference', {'engine': 'masked_dense', **_TO_112}),
    Variant('tiles', 'exact', _TO_112),
    Variant('tiles, bf16 teacher', 'targets rounded', {**_TO_112, **_BF16}),
    Variant('tiles, out_stride 16', 'smaller decoder', {}),
    Variant('  and bf16 teacher', 'smaller decoder, targets rounded', _BF16),
    Variant('  and visible view', 'smaller decoder, other targets', _VISIBLE),
    Variant('  and both', 'smaller decoder, other targets, rounded', {**_VISIBLE, **_BF16}),
)


def build_models(
    variants: tuple[Variant, ...], config: Path, settings: Settings, vit: str | dict = 'base'
) -> dict[str, nn.Module]:
    """The config's model for each variant, with a teacher of random weights.

    The config has a teacher ``mim`` of MAE; ``vit`` is its size, as mmpretrain's
    ``VisionTransformer`` wants it. Its weights, which do not change its time, go through a file,
    because there is no other way to make a teacher.
    """
    import_modules_from_strings(['mmpretrain.models', 'hgkd_mm.models'])
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = random_teacher(Path(folder), vit)
        for variant in variants:
            whole = Config.fromfile(config)
            override(whole, {f'model.{k}': v for k, v in variant.options.items()})
            whole.model.teachers.mim.checkpoint = str(weights)
            whole.model.mask.ratio = settings.mask_ratio
            model = MODELS.build(whole.model)
            model.train()
            models[variant.name] = model.to(settings.device, memory_format=torch.channels_last)
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
    device = images.device.type
    with torch.no_grad(), autocast(dtype, device):
        targets = {name: teacher(images, mask) for name, teacher in model.teachers.items()}
        maps = model.backbone(sparsify(images, mask, model.engine))
        decoded = model.neck(maps)

    def student() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(dtype, device):
            out = model.backbone(sparsify(images, model.draw_mask(images), model.engine))
        backward_of_sum([m.data for m in out])

    def decoder() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(dtype, device):
            out = model.neck([_leaf(m) for m in maps])
        backward_of_sum([out])

    def teacher() -> None:
        with autocast(dtype, device):
            for one in model.teachers.values():
                one(images, mask)

    def loss() -> None:
        model.zero_grad(set_to_none=True)
        output = StudentOutput(
            images=images,
            mask=mask,
            maps=tuple(_leaf(m) for m in maps),
            decoded=decoded.detach().requires_grad_(),
        )
        with autocast(dtype, device):
            losses = [head(output, targets[head.teacher]) for head in model.heads.values()]
        sum(losses).backward()

    return {'student': student, 'decoder': decoder, 'teacher': teacher, 'loss': loss}


def measure_step(stage: Stage, settings: Settings, config: Path, vit: str | dict = 'base') -> None:
    """The whole H-GKD step of a config by variant, without data and optimizer, and its parts."""
    models, images = build_models(VARIANTS, config, settings, vit), settings.images()
    wholes = {name: whole_step(model, images, settings.dtype) for name, model in models.items()}
    title = (
        f'{config.stem}, batch {settings.batch}, {settings.size} px, '
        f'mask ratio {settings.mask_ratio}, {settings.type_name}'
    )
    table, reference = stage.table(f'Whole step, {title}'), VARIANTS[0].name
    results = measure(wholes, settings, reference)
    for result, variant in zip(results, VARIANTS, strict=True):
        more = dict(cells={'differs by': variant.same}, record={'same': variant.same})
        table.add_step(result, wholes[result.name], settings, reference, **more)
    parts = stage.table(f'Parts of the step, each alone, ms; {title}')
    few = replace(settings, rounds=min(3, settings.rounds))
    for name, model in models.items():
        if stage.out_of_time(f'the parts of {name.strip()} and later ones'):
            break
        timed = measure(step_parts(model, images, settings.dtype), few, 'student')
        times = {result.name: result.median for result in timed}
        shown = {part: milliseconds(time) for part, time in times.items()}
        parts.add({'step': name, **shown}, {'name': name, **times})


def measure_loading(stage: Stage, settings: Settings, config: Path) -> None:
    """Reading a batch of JPEGs of smooth noise, about as large as ImageNet's, by a pipeline."""
    import_modules_from_strings(['mmpretrain.datasets'])
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    transforms = Compose([TRANSFORMS.build(step) for step in pipeline])
    noise = np.random.default_rng(0).integers(0, 255, (47, 63, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'picture.jpg')
        cv2.imwrite(path, picture)

        def read() -> None:
            for _ in range(settings.batch):
                transforms({'img_path': path})

        (result,) = measure({'data': read}, replace(settings, device='cpu'), 'data')
    table = stage.table(f'Reading {settings.batch} JPEGs of 500 x 375 px in one process')
    table.add({'step': 'data', 'ms': milliseconds(result.median)}, vars(result))


def add_step_waits(table: Report, settings: Settings, config: Path, vit: str | dict) -> None:
    """Waits of the whole step, with a teacher that sees all and one that sees the visible."""
    names = ('tiles, out_stride 16', 'and visible view')
    variants = tuple(variant for variant in VARIANTS if variant.name.strip() in names)
    images = settings.images()
    for name, model in build_models(variants, config, settings, vit).items():
        run = whole_step(model, images, settings.dtype)
        run()
        add_waits(table, name, run)


def _leaf(x: SparseFeatureMap) -> SparseFeatureMap:
    return x.pointwise(lambda values: values.detach().requires_grad_())
