"""What redundant token masking saves of a transformer student's training step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor

from hgkd_mm.models.token_masking import RedundantTokenMasking

from .encoder import autocast
from .report import Stage, mebibytes
from .timing import Settings, measure, saved_bytes

ALL = 'every token'


def measure_masking(
    stage: Stage, settings: Settings, keep_ratios: Sequence[float], vit: str | dict = 'base'
) -> None:
    """Training step of a ViT/16 by the fraction of tokens that each masking keeps.

    ``vit`` is the size, as mmpretrain's ``VisionTransformer`` wants it.
    """
    student = VisionTransformer(vit, img_size=settings.size, patch_size=16, out_type='raw')
    student.train()  # mmpretrain's returns None
    student.to(settings.device)
    images = torch.randn(settings.batch, 3, settings.size, settings.size, device=settings.device)

    def forward(masking: RedundantTokenMasking) -> Tensor:
        dropping = masking.applied(student.layers, student.num_extra_tokens)
        with dropping, autocast(settings.dtype, settings.device):
            (tokens,) = student(images)
        return tokens.float().square().mean()

    def step(masking: RedundantTokenMasking) -> None:
        student.zero_grad(set_to_none=True)
        forward(masking).backward()

    ratios = {ALL: 1.0} | {f'keep {ratio:g} each time': ratio for ratio in keep_ratios}
    maskings = {name: RedundantTokenMasking(keep_ratio=ratio) for name, ratio in ratios.items()}
    known = [images, *student.parameters()]
    saved = {name: saved_bytes(partial(forward, m), known) for name, m in maskings.items()}
    steps = {name: partial(step, masking) for name, masking in maskings.items()}
    table = stage.table(
        f'ViT-{vit}/16 student, batch {settings.batch}, {settings.size} px, {settings.type_name}'
    )
    tokens, blocks = (settings.size // 16) ** 2, len(student.layers)
    for result in measure(steps, settings, ALL):
        masking, kept = maskings[result.name], saved[result.name]
        left, share = masking.counts(tokens, blocks), _mean_share(masking, tokens, blocks)
        cells = {'tokens left': ' '.join(map(str, left)), 'mean share': f'{share:.3f}'}
        cells['saved MiB'] = mebibytes(kept)
        record = {'left': left, 'mean_share': share, 'saved_bytes': kept}
        run = steps[result.name]
        table.add_step(result, run, settings, ALL, cells=cells, record=record)


def _mean_share(masking: RedundantTokenMasking, tokens: int, count: int) -> float:
    """Tokens that a block works on, the mean over blocks, as a share of all."""
    left = dict(zip(masking.blocks(count), masking.counts(tokens, count), strict=True))
    now, total = tokens, 0
    for block in range(count):
        total += now
        now = left.get(block, now)
    return total / (tokens * count)
