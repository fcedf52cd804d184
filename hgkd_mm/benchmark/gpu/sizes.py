"""How large all that is measured is: as in training, or tiny for a test on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Sizes:
    """Networks, batches and images.

    Attributes:
        parity: timm's networks that are compared with float64.
        encoder: timm's networks that are timed, and what ``NETWORKS`` calls each.
        image: image side, pixels; the mask's cells have 32.
        parity_batch, batch, small_batch, step_batch, train_batch: images a step: of the
            comparison, of the encoders, of the first encoder once more, of the whole step, of
            the training.
        rounds, unmeasured: measured steps of each alternative, and those before them.
        dtype: bfloat16 for autocast of all that is timed; many a CPU has no convolutions for it.
        convolutions: how many of the layers of ``CONVOLUTIONS`` are measured.
        vit: the teacher, as mmpretrain's ``VisionTransformer`` wants it.
        options: changes of the flagship's config.
        images: training images to draw for each process that draws them.
        train_seconds: most that the training may take.
        train_steps: most steps of it.
        warm_up: its steps that do not count: kernels are chosen, the loader's queue fills.
        compiled: whether ``torch.compile`` is measured.
    """

    parity: tuple[str, ...] = ('resnet50', 'convnext_tiny', 'mobilenetv2_100')
    encoder: dict[str, str] = field(
        default_factory=lambda: {
            'resnet50': 'resnet50',
            'resnet18': 'resnet18',
            'convnext_tiny': 'convnext_tiny',
            'mobilenetv2_100': 'mobilenet_v2',
        }
    )
    image: int = 224
    parity_batch: int = 8
    batch: int = 256
    small_batch: int = 64
    step_batch: int = 256
    train_batch: int = 256
    rounds: int = 8
    unmeasured: int = 2
    dtype: torch.dtype = torch.bfloat16
    convolutions: int | None = None
    vit: str | dict = 'base'
    options: dict[str, object] = field(default_factory=dict)
    images: int = 60
    train_seconds: float = 90.0
    train_steps: int = 100_000
    warm_up: int = 10
    compiled: bool = True

    @property
    def type_name(self) -> str:
        """Of ``dtype``, for titles."""
        return str(self.dtype).removeprefix('torch.')


_TEACHER = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 48}

SMALL = Sizes(
    parity=('resnet10t', 'convnext_atto'),
    encoder={'resnet18': 'resnet18', 'mobilenetv2_050': 'mobilenet_v2'},
    image=64,
    parity_batch=2,
    batch=2,
    small_batch=2,
    step_batch=2,
    train_batch=2,
    rounds=1,
    unmeasured=1,
    dtype=torch.float32,
    convolutions=1,
    vit=_TEACHER,
    options={
        'model.backbone.depth': 18,
        'model.backbone.drop_path_rate': 0.0,
        'model.teachers.mim.arch': {'_delete_': True, **_TEACHER},
        'model.heads.sim.queue_size': 64,
    },
    images=12,
    train_seconds=20.0,
    train_steps=4,
    warm_up=1,
    compiled=False,
)
