"""The whole H-GKD step, as it is usually done and as it is done here, and its parts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Variant:
    """One way to take a step.

    Attributes:
        name: for the table.
        same: whether it computes what the first variant computes; otherwise what differs.
        options: changes of the config, in MMEngine's dotted form.
    """

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
    variants: tuple[Variant, ...],
    config: Path,
    device: str,
    mask_ratio: float,
    vit: str | dict = 'base',
) -> dict[str, nn.Module]:
    """The config's model for each variant, with a teacher of random weights.

    What weights a teacher has does not change its time; they are written to a file and read
    from there, because there is no other way to make a teacher.

    Args:
        variants: what to build.
        config: with a teacher ``mim`` of MAE.
        device: where the models go.
        mask_ratio: hidden fraction.
        vit: size of the teacher, as mmpretrain's ``VisionTransformer`` wants it.

    Returns:
        Name of the variant to its model, in training mode.
    """
    import_modules_from_strings(['mmpretrain.models', 'hgkd_mm.models'])
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = random_teacher(Path(folder), vit)
        for variant in variants:
            whole = Config.fromfile(config)
            override(whole, {f'model.{k}': v for k, v in variant.options.items()})
            whole.model.teachers.mim.checkpoint = str(weights)
            whole.model.mask.ratio = mask_ratio
            model = MODELS.build(whole.model)
            model.train()
            models[variant.name] = model.to(device, memory_format=torch.channels_last)
    return models


def random_teacher(folder: Path, vit: str | dict = 'base') -> Path:
    """A file of random weights of a ViT/16, as ``MIMTeacher`` reads them.

    Args:
        folder: where the file goes.
        vit: size, as mmpretrain's ``VisionTransformer`` wants it.
    """
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


def load_images(config: Path, batch: int) -> Callable[[], None]:
    """Reads a batch through the config's pipeline, in this process.

    The files are 500 x 375 JPEGs of smooth noise, about as large as ImageNet's.
    """
    import_modules_from_strings(['mmpretrain.datasets'])
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    transforms = Compose([TRANSFORMS.build(step) for step in pipeline])
    noise = np.random.default_rng(0).integers(0, 255, (47, 63, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'picture.jpg'
            cv2.imwrite(str(path), picture)
            for _ in range(batch):
                transforms({'img_path': str(path)})

    return run


def _leaf(x: SparseFeatureMap) -> SparseFeatureMap:
    return x.pointwise(lambda values: values.detach().requires_grad_())
