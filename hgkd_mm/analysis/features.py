"""Features of a network stage by stage, and what they are worth without attention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hgkd_mm.evaluation import (
    alignment,
    class_separability,
    effective_rank,
    eval_mode,
    knn_accuracy,
    pool_features,
    rankme,
    token_similarity,
    uniformity,
)
from hgkd_mm.models.outputs import TeacherOutput

from .layout import TokenLayout
from .subject import Subject

_NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True)
class StageFeatures:
    """What one stage says of N images.

    Attributes:
        name: of the stage.
        pooled: (N, D) float32, the mean over positions.
        mirrored: (N, D) float32, the same of the images with left and right exchanged.
        similarity: (N,) cosine similarity of positions (`token_similarity`); None if the stage
            has but one.
    """

    name: str
    pooled: Tensor
    mirrored: Tensor
    similarity: Tensor | None


def collect_features(
    subject: Subject,
    batches: Iterable[Tensor],
    *,
    blocks: Mapping[int, nn.Module] | None = None,
    layout: TokenLayout | None = None,
) -> list[StageFeatures]:
    """Features of each output map, or of each block of a vision transformer.

    Args:
        subject: the network.
        batches: (b, 3, H, W) normalised images, at least one.
        blocks: index to block, whose patch tokens count, before the network's final norm. None:
            the network's outputs.
        layout: of the tokens of ``blocks``.

    Returns:
        One entry a stage, from first to last.

    Raises:
        ValueError: the network gives neither (B, C, H, W) maps nor (B, D) matrices.
    """
    rows: dict[str, list[tuple[Tensor, Tensor, Tensor | None]]] = {}
    with torch.no_grad(), eval_mode(subject.network):
        for images in batches:
            stages = _stages(subject, images, blocks, layout)
            mirrored = _stages(subject, images.flip(3), blocks, layout)
            for name, tokens in stages.items():
                similarity = token_similarity(tokens).cpu() if tokens.shape[1] > 1 else None
                pooled = (t.mean(1).float().cpu() for t in (tokens, mirrored[name]))
                rows.setdefault(name, []).append((*pooled, similarity))
    return [
        StageFeatures(
            name=name,
            pooled=torch.cat([part[0] for part in parts]),
            mirrored=torch.cat([part[1] for part in parts]),
            similarity=None if parts[0][2] is None else torch.cat([part[2] for part in parts]),
        )
        for name, parts in rows.items()
    ]


def feature_figures(stage: StageFeatures, labels: Tensor | None) -> dict[str, Any]:
    """Figures of one stage, by the names of the literature.

    ``knn_top1`` classifies the second half of the images by the first, which must be in random
    order; at most 20 neighbours vote.

    Args:
        stage: features of N images.
        labels: (N,) class indices, or None if they are not known.

    Returns:
        Name to number; None where it cannot be told, and where it is not finite, which JSON
        does not know.
    """
    figures: dict[str, Any] = {
        'stage': stage.name,
        'channels': stage.pooled.shape[1],
        'effective_rank': effective_rank(stage.pooled),
        'rankme': rankme(stage.pooled),
        'token_similarity': None if stage.similarity is None else stage.similarity.mean().item(),
        'uniformity': uniformity(stage.pooled),
        'alignment_mirrored': alignment(stage.pooled, stage.mirrored),
        'class_separability': None,
        'knn_top1': None,
    }
    if labels is not None:
        half = len(labels) // 2
        figures['class_separability'] = class_separability(stage.pooled, labels)
        figures['knn_top1'] = knn_accuracy(
            stage.pooled[:half],
            labels[:half],
            stage.pooled[half:],
            labels[half:],
            k=min(_NEIGHBOURS, half),
        )
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def _stages(
    subject: Subject,
    images: Tensor,
    blocks: Mapping[int, nn.Module] | None,
    layout: TokenLayout | None,
) -> dict[str, Tensor]:
    """Name to (B, n, D) tokens of each stage."""
    if blocks is None or layout is None:
        return _tokens_of(subject.run(images))
    with _outputs(blocks) as found:
        subject.run(images)
    return {f'block {index}': tokens[:, layout.prefix :] for index, tokens in found.items()}


def _tokens_of(output: Any) -> dict[str, Tensor]:
    if isinstance(output, TeacherOutput):
        output = output.tokens
    maps = output if isinstance(output, list | tuple) else [output]
    found = {}
    for index, features in enumerate(maps):
        if isinstance(features, Tensor) and features.dim() == 4:
            tokens = features.flatten(2).transpose(1, 2)
            size = f', {features.shape[2]} x {features.shape[3]}'
        else:
            tokens, size = pool_features(features).unsqueeze(1), ''
        found[f'output {index + 1} of {len(maps)}{size}'] = tokens
    return found


@contextmanager
def _outputs(blocks: Mapping[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    found: dict[int, Tensor] = {}

    def keep(index: int, _block: nn.Module, _inputs: tuple, output: Tensor) -> None:
        found[index] = output

    with ExitStack() as hooks:
        for index, block in blocks.items():
            hooks.callback(block.register_forward_hook(partial(keep, index)).remove)
        yield found
