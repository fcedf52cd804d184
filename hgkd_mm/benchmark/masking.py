"""What redundant token masking saves of a transformer student's training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor, nn

from hgkd_mm.models.token_masking import RedundantTokenMasking

from .encoder import autocast
from .table import MIB, Report, Settings
from .timing import measure, saved_bytes

ALL = 'every token'


def masking_report(
    settings: Settings, keep_ratios: Sequence[float], vit: str | dict = 'base'
) -> Report:
    """Training step of a ViT/16 by the fraction of tokens that each masking keeps.

    Args:
        settings: ``network``, ``cell`` and ``mask_ratio`` do not count.
        keep_ratios: of :class:`RedundantTokenMasking`, less than 1 each.
        vit: size, as mmpretrain's ``VisionTransformer`` wants it.
    """
    student = VisionTransformer(vit, img_size=settings.size, patch_size=16, out_type='raw')
    student.train()
    student.to(settings.device)
    images = torch.randn(settings.batch, 3, settings.size, settings.size, device=settings.device)
    count, tokens = len(student.layers), (settings.size // 16) ** 2
    maskings = {ALL: RedundantTokenMasking(keep_ratio=1.0)} | {
        f'keep {ratio:g} each time': RedundantTokenMasking(keep_ratio=ratio)
        for ratio in keep_ratios
    }
    forward = {
        name: _forward(student, images, masking, settings.dtype)
        for name, masking in maskings.items()
    }
    known = [images, *student.parameters()]
    saved = {name: saved_bytes(run, known) for name, run in forward.items()}
    steps = {name: _step(student, run) for name, run in forward.items()}
    results = measure(steps, reference=ALL, rounds=settings.rounds, device=settings.device)
    dtype = str(settings.dtype).removeprefix('torch.')
    report = Report(
        f'ViT-{vit}/16 student, batch {settings.batch}, {settings.size} px, {dtype}',
        ('training step', 'ms', 'ratio', 'range', 'tokens left', 'mean share', 'saved MiB'),
    )
    for result in results:
        left = maskings[result.name].counts(tokens, count)
        share = _mean_share(maskings[result.name], tokens, count)
        kept = saved[result.name]
        cells = (' '.join(map(str, left)), f'{share:.3f}', f'{kept / MIB:.0f}')
        report.add(result, cells, {'left': left, 'mean_share': share, 'saved_bytes': kept})
    return report


def _mean_share(masking: RedundantTokenMasking, tokens: int, count: int) -> float:
    """Tokens that a block works on, the mean over blocks, as a share of all."""
    left = dict(zip(masking.blocks(count), masking.counts(tokens, count), strict=True))
    now, total = tokens, 0
    for block in range(count):
        total += now
        now = left.get(block, now)
    return total / (tokens * count)


def _forward(
    student: VisionTransformer,
    images: Tensor,
    masking: RedundantTokenMasking,
    dtype: torch.dtype,
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        dropping = masking.applied(student.layers, student.num_extra_tokens)
        with dropping, autocast(dtype, images.device.type):
            (tokens,) = student(images)
        return tokens.float().square().mean()

    return run


def _step(student: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        student.zero_grad(set_to_none=True)
        forward().backward()

    return run
