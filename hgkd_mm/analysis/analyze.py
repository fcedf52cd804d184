"""From a config, weights and a folder of images to figures: JSON, and pictures of attention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from hgkd_mm.evaluation import patch_distances
from hgkd_mm.models.qkv import choose_blocks
from hgkd_mm.utils.files import write_whole
from hgkd_mm.utils.launch import check_device
from hgkd_mm.visualization.folder_images import Size

from .attention import LayerAttention, attention_curves, attention_maps
from .features import collect_features, feature_figures
from .figures import draw_curves, draw_maps
from .image_set import ImageSet, load_image_set
from .layout import TokenLayout, find_queries, token_layout
from .subject import Subject, load_student, load_teacher


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was written.

    Attributes:
        figures: what the JSON file holds.
        files: the JSON file, then pictures if there are any.
        notes: sentences about what was loaded and what could not be told.
    """

    figures: dict[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Transformer:
    """What is looked at in a network with attention."""

    blocks: dict[int, nn.Module]
    drawn: dict[int, nn.Module]
    queries: dict[str, int]
    layout: TokenLayout


def analyze(
    config: Config,
    *,
    out: str | Path,
    checkpoint: str | None = None,
    teacher: str | None = None,
    folder: str | Path | None = None,
    queries: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    count: int = 256,
    shown: int = 4,
    size: Size | None = None,
    seed: int = 0,
    batch_size: int = 16,
    device: str = 'cpu',
    trust_checkpoint: bool = False,
) -> Analysis:
    """Analyses the backbone of a config, or one of its teachers.

    Writes ``analysis.json``; of a vision transformer also ``layers.png`` (`draw_curves`) and
    ``attention.png`` (`draw_maps`).

    Args:
        config: of mmpretrain, mmdet or mmseg.
        out: folder to write into.
        checkpoint: weights of the model or of its backbone.
        teacher: name of a teacher in the config, which has weights of its own; instead.
        folder: images; class subfolders are their labels. That of the config if None.
        queries: tokens whose attention is drawn, see `find_queries`.
        layers: blocks that it is drawn of; by default the first, the middle and the last.
        count: number of images; fewer if the folder has fewer.
        shown: how many of them are drawn.
        size: (H, W) that images are cropped to; that of training if None.
        seed: of the choice of images.
        batch_size: images that are computed at once.
        device: where to compute.
        trust_checkpoint: allow the checkpoint to run pickled code.

    Raises:
        FileNotFoundError: a file or folder is missing, or holds no image.
        RuntimeError: weights cannot be read or do not fit the teacher, all images are broken,
            or there is no such device.
        ValueError: config, weights, sizes or settings do not fit.
    """
    limits = (('--num', count, 2), ('--shown', shown, 1), ('--batch-size', batch_size, 1))
    for flag, value, least in limits:
        if value < least:
            raise ValueError(f'{flag} is a number of images, {least} or more, got {value}.')
    check_device(device)
    subject = _subject(config, checkpoint, teacher, trust_checkpoint)
    images = load_image_set(config, folder, count=count, size=size, seed=seed)
    notes = [subject.weights, *images.notes()]
    try:
        vit = _transformer(subject, subject.blocks(), images.size, queries, layers)
    except TypeError as error:
        if queries or layers:
            raise ValueError(f'--queries and --layers are for attention, but {error}') from error
        vit = None
        notes.append(f'Figures of features only: {error}')
    subject.network.to(device)
    out, attention, pictures = Path(out), None, []
    if vit is not None:
        batches = images.batches(subject.input_format, size=batch_size, device=device)
        curves = attention_curves(subject, vit.blocks, vit.layout, batches)
        attention = _attention_figures(curves, vit.layout)
        uniform = attention['uniform_distance_px']
        pictures = [
            draw_curves(curves, out / 'layers.png', title=subject.title, uniform=uniform),
            _draw_maps(subject, vit, images, out / 'attention.png', shown, device),
        ]
    figures = {
        'config': str(config.filename),
        'network': subject.title,
        'weights': subject.weights,
        'images': images.described(),
        'chance': images.chance,
        'attention': attention,
        'features': _features(subject, vit, images, batch_size, device),
    }
    file = out / 'analysis.json'
    write_whole(file, (json.dumps(figures, indent=1, allow_nan=False) + '\n').encode())
    return Analysis(figures=figures, files=(file, *pictures), notes=tuple(notes))


def _subject(
    config: Config, checkpoint: str | None, teacher: str | None, trust_checkpoint: bool
) -> Subject:
    if checkpoint is not None and teacher is None:
        return load_student(config, checkpoint, trust_checkpoint=trust_checkpoint)
    if teacher is not None and checkpoint is None:
        return load_teacher(config, teacher)
    raise ValueError(
        'Name the weights to analyse once: CHECKPOINT for the backbone of the config, or '
        '--teacher NAME for a teacher, which has its own.'
    )


def _transformer(
    subject: Subject,
    blocks: Sequence[nn.Module],
    size: Size,
    queries: Sequence[str] | None,
    layers: Sequence[int] | None,
) -> _Transformer:
    layout = token_layout(subject.network, size)
    wanted = sorted({0, len(blocks) // 2, len(blocks) - 1}) if layers is None else layers
    return _Transformer(
        blocks=dict(enumerate(blocks)),
        drawn=choose_blocks(blocks, wanted, key='--layers'),
        queries=find_queries(queries, layout),
        layout=layout,
    )


def _draw_maps(
    subject: Subject, vit: _Transformer, images: ImageSet, path: Path, shown: int, device: str
) -> Path:
    batch = next(images.batches(subject.input_format, size=shown, device=device))
    maps = attention_maps(subject, vit.drawn, vit.layout, batch, list(vit.queries.values()))
    few = images.images.pictures[:shown]
    return draw_maps(few, maps, vit.queries, vit.layout, path, title=subject.title)


def _features(
    subject: Subject, vit: _Transformer | None, images: ImageSet, batch_size: int, device: str
) -> list[dict[str, Any]]:
    batches = images.batches(subject.input_format, size=batch_size, device=device)
    inside = {} if vit is None else {'blocks': vit.blocks, 'layout': vit.layout}
    stages = collect_features(subject, batches, **inside)
    return [feature_figures(stage, images.labels) for stage in stages]


def _attention_figures(curves: Sequence[LayerAttention], layout: TokenLayout) -> dict[str, Any]:
    return {
        'grid': list(layout.grid),
        'prefix_tokens': layout.prefix,
        'patch_px': layout.stride,
        'uniform_distance_px': layout.stride * patch_distances(layout.grid).mean().item(),
        'layers': [
            asdict(layer)
            | {
                'distance_mean': sum(layer.distance) / len(layer.distance),
                'nmi_mean': sum(layer.nmi) / len(layer.nmi),
            }
            for layer in curves
        ],
    }
