"""What redundant token masking saves of a transformer student's training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor

from hgkd_mm.models.token_masking import RedundantTokenMasking

from .encoder import autocast
from .report import Settings, Stage, mebibytes
from .timing import saved_bytes

ALL = 'every token'


def measure_masking(
    stage: Stage, settings: Settings, keep_ratios: Sequence[float], vit: str | dict = 'base'
) -> None:
    """Training step of a ViT/16 by the fraction of tokens that each masking keeps.

    Args:
        stage: gets the table.
        settings: ``network``, ``cell`` and ``mask_ratio`` do not count.
        keep_ratios: of :class:`RedundantTokenMasking`, less than 1 each.
        vit: size, as mmpretrain's ``VisionTransformer`` wants it.
    """
    student = VisionTransformer(vit, img_size=settings.size, patch_size=16, out_type='raw')
    student.train()  # mmpretrain's returns None
    student.to(settings.device)
    images = torch.randn(settings.batch, 3, settings.size, settings.size, device=settings.device)
    ratios = {ALL: 1.0} | {f'keep {ratio:g} each time': ratio for ratio in keep_ratios}
    maskings = {name: RedundantTokenMasking(keep_ratio=ratio) for name, ratio in ratios.items()}
    forward = {
        name: _forward(student, images, masking, settings.dtype)
        for name, masking in maskings.items()
    }
    known = [images, *student.parameters()]
    saved = {name: saved_bytes(run, known) for name, run in forward.items()}
    steps = {name: _step(student, run) for name, run in forward.items()}
    table = stage.table(
        f'ViT-{vit}/16 student, batch {settings.batch}, {settings.size} px, {settings.type_name}'
    )
    tokens, blocks = (settings.size // 16) ** 2, len(student.layers)
    for result in settings.measure(steps, ALL):
        masking, kept = maskings[result.name], saved[result.name]
        left, share = masking.counts(tokens, blocks), _mean_share(masking, tokens, blocks)
        table.add_step(
            result,
            steps[result.name],
            settings,
            reference=ALL,
            cells={
                'tokens left': ' '.join(map(str, left)),
                'mean share': f'{share:.3f}',
                'saved MiB': mebibytes(kept),
            },
            record={'left': left, 'mean_share': share, 'saved_bytes': kept},
        )


def _mean_share(masking: RedundantTokenMasking, tokens: int, count: int) -> float:
    """Tokens that a block works on, the mean over blocks, as a share of all."""
    left = dict(zip(masking.blocks(count), masking.counts(tokens, count), strict=True))
    now, total = tokens, 0
    for block in range(count):
        total += now
        now = left.get(block, now)
    return total / (tokens * count)


def _forward(
    student: VisionTransformer, images: Tensor, masking: RedundantTokenMasking, dtype: torch.dtype
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        dropping = masking.applied(student.layers, student.num_extra_tokens)
        with dropping, autocast(dtype, images.device.type):
            (tokens,) = student(images)
        return tokens.float().square().mean()

    return run


def _step(student: VisionTransformer, forward: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        student.zero_grad(set_to_none=True)
        forward().backward()

    return run
