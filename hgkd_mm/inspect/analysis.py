"""Statistics of a network's attention and features over images, as JSON, tables and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from hgkd_mm.evaluation import (
    alignment,
    class_separability,
    effective_rank,
    eval_mode,
    knn_accuracy,
    patch_distances,
    pool_features,
    rankme,
    token_similarity,
    uniformity,
)
from hgkd_mm.models.outputs import TeacherOutput
from hgkd_mm.models.qkv import choose_blocks
from hgkd_mm.utils.files import write_whole

from .attention_figures import (
    LayerAttention,
    TokenLayout,
    attention_curves,
    attention_maps,
    draw_curves,
    draw_maps,
    find_queries,
    token_layout,
)
from .images import Size, data_folder, load_folder_images, training_size
from .networks import LoadedNetwork, load_student, load_teacher

_NEIGHBORS = 20


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was written."""

    figures: dict[str, Any]  # contents of the JSON file
    files: tuple[Path, ...]  # the JSON file, then pictures if there are any
    notes: tuple[str, ...]  # sentences about what was loaded and what is not available


@dataclass(frozen=True, kw_only=True)
class StageFeatures:
    """Features of N images at one stage of a network."""

    name: str
    pooled: Tensor  # (N, D) float32, the mean over positions
    mirrored: Tensor  # (N, D) float32, the same for the images flipped horizontally
    similarity: Tensor | None  # (N,) `token_similarity`; None if the stage has one position


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
    """Analyzes the backbone of a config, or one of its teachers.

    Writes ``analysis.json``, and for a vision transformer ``layers.png`` (`draw_curves`) and
    ``attention.png`` (`draw_maps`).

    Args:
        config: of mmpretrain, mmdet or mmseg.
        out: folder to write into.
        checkpoint: weights of the model or of its backbone.
        teacher: name of a teacher in the config, which has weights of its own; instead.
        folder: with images; class subfolders are their labels. By default that of the config.
        queries: tokens whose attention is drawn, see `find_queries`.
        layers: blocks whose attention is drawn; by default the first, the middle and the last.
        count: of images; fewer if the folder has fewer.
        shown: number of images that are drawn.
        size: (H, W) that images are cropped to; by default that of training.
        seed: of the choice of images.
        batch_size: of a forward pass.
        device: to compute on.
        trust_checkpoint: allow the checkpoint to run pickled code.

    Raises:
        OSError, RuntimeError, ValueError: an argument is wrong, before anything is written.
    """
    limits = (('--num', count, 2), ('--shown', shown, 1), ('--batch-size', batch_size, 1))
    for flag, value, least in limits:
        if value < least:
            raise ValueError(f'{flag} is a number of images, {least} or more, got {value}.')
    if (checkpoint is None) == (teacher is None):
        raise ValueError(
            'Name the weights to analyze once: CHECKPOINT for the backbone of the config, or '
            '--teacher NAME for a teacher, which has its own.'
        )
    if teacher is not None:
        loaded = load_teacher(config, teacher)
    else:
        loaded = load_student(config, checkpoint, trust_checkpoint=trust_checkpoint)
    folder, size = folder or data_folder(config), size or training_size(config)
    images = load_folder_images(folder, count=count, size=size, seed=seed)
    classes, labels = images.classes()
    chance = None if labels is None else _chance(len(labels), len(classes))
    notes = [loaded.weights, images.description(), _about_classes(len(classes), chance)]
    blocks, layout, drawn, tokens = {}, None, {}, {}
    try:
        blocks, layout = dict(enumerate(loaded.blocks())), token_layout(loaded.network, size)
    except TypeError as error:
        if queries or layers:
            raise ValueError(f'--queries and --layers are for attention, but {error}') from error
        notes.append(f'Figures of features only: {error}')
    else:
        wanted = sorted({0, len(blocks) // 2, len(blocks) - 1}) if layers is None else layers
        drawn = choose_blocks(list(blocks.values()), wanted, key='--layers')
        tokens = find_queries(queries, layout)

    loaded.network.to(device)
    batches = partial(images.batches, loaded.input_format, device=device)
    out, attention, pictures = Path(out), None, []
    if layout is not None:
        curves = attention_curves(loaded, blocks, layout, batches(size=batch_size))
        attention = _attention_figures(curves, layout)
        uniform, title = attention['uniform_distance_px'], loaded.title
        few = images.pictures[:shown]
        maps = attention_maps(loaded, drawn, layout, next(batches(size=shown)), tokens.values())
        pictures = [
            draw_curves(curves, out / 'layers.png', title=title, uniform=uniform),
            draw_maps(few, maps, tokens, layout, out / 'attention.png', title=title),
        ]
    stages = collect_features(loaded, batches(size=batch_size), blocks=blocks, layout=layout)
    figures = {
        'config': str(config.filename),
        'network': loaded.title,
        'weights': loaded.weights,
        'images': {
            'folder': str(images.folder),
            'count': len(images.paths),
            'of': images.total,
            'height': size[0],
            'width': size[1],
            'seed': seed,
            'classes': classes,
        },
        'chance': chance,
        'attention': attention,
        'features': [feature_figures(stage, labels) for stage in stages],
    }
    file = out / 'analysis.json'
    write_whole(file, (json.dumps(figures, indent=1, allow_nan=False) + '\n').encode())
    return Analysis(figures=figures, files=(file, *pictures), notes=tuple(notes))


def _chance(count: int, classes: int) -> dict[str, float]:
    """Expected figures of features that are independent of the classes."""
    return {'class_separability': (classes - 1) / (count - classes), 'knn_top1': 100 / classes}


def _about_classes(count: int, chance: Mapping[str, float] | None) -> str:
    if chance is None:
        return (
            'Without class separability and kNN: the images are not in two or more class '
            'subfolders with two or more images each.'
        )
    return (
        f'{count} classes: features that are independent of them have a separability of about '
        f'{chance["class_separability"]:.3f} and a kNN of {chance["knn_top1"]:.1f} %.'
    )


def _attention_figures(curves: Sequence[LayerAttention], layout: TokenLayout) -> dict[str, Any]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return {
        'grid': list(layout.grid),
        'prefix_tokens': layout.prefix,
        'patch_px': layout.stride,
        'uniform_distance_px': layout.stride * patch_distances(layout.grid).mean().item(),
        'layers': [
            asdict(one) | {'distance_mean': mean(one.distance), 'nmi_mean': mean(one.nmi)}
            for one in curves
        ],
    }


def collect_features(
    loaded: LoadedNetwork,
    batches: Iterable[Tensor],
    *,
    blocks: Mapping[int, nn.Module] | None = None,
    layout: TokenLayout | None = None,
) -> list[StageFeatures]:
    """Features of each output of a network, or of each of its blocks if they have a layout.

    Args:
        loaded: the network.
        batches: (b, 3, H, W) normalized images, at least one.
        blocks: of a vision transformer, by index; patch tokens before its final norm are taken.
        layout: of the tokens of ``blocks``.

    Raises:
        ValueError: the network's outputs are neither (B, C, H, W) maps nor (B, D) matrices.
    """
    parts: dict[str, list[StageFeatures]] = {}
    with torch.no_grad(), eval_mode(loaded.network):
        for images in batches:
            stages = _stage_tokens(loaded, images, blocks or {}, layout)
            mirrored = _stage_tokens(loaded, images.flip(3), blocks or {}, layout)
            for name, tokens in stages.items():
                part = StageFeatures(
                    name=name,
                    pooled=tokens.mean(1).float().cpu(),
                    mirrored=mirrored[name].mean(1).float().cpu(),
                    similarity=token_similarity(tokens).cpu() if tokens.shape[1] > 1 else None,
                )
                parts.setdefault(name, []).append(part)
    return [_joined(of_stage) for of_stage in parts.values()]


def _joined(parts: Sequence[StageFeatures]) -> StageFeatures:
    similarity = [part.similarity for part in parts if part.similarity is not None]
    return StageFeatures(
        name=parts[0].name,
        pooled=torch.cat([part.pooled for part in parts]),
        mirrored=torch.cat([part.mirrored for part in parts]),
        similarity=torch.cat(similarity) if similarity else None,
    )


def feature_figures(stage: StageFeatures, labels: Tensor | None) -> dict[str, Any]:
    """Figures of one stage, by the names of the literature.

    ``knn_top1`` classifies the second half of the images by the first, which must be in random
    order; at most 20 neighbors vote.

    Args:
        stage: features of N images.
        labels: (N,) class indices, if they are known.

    Returns:
        Name to number; None if it is not available, or not finite, which JSON cannot express.
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
        bank, queries = (stage.pooled[:half], labels[:half]), (stage.pooled[half:], labels[half:])
        figures['class_separability'] = class_separability(stage.pooled, labels)
        figures['knn_top1'] = knn_accuracy(*bank, *queries, k=min(_NEIGHBORS, half))
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def figures_table(figures: Mapping[str, Any]) -> str:
    """The figures of `analyze` as text: attention by block, features by stage."""
    tables = []
    if figures['attention'] is not None:
        table = [('block', 'distance, px', 'least head', 'most', 'NMI', 'least head', 'most')]
        for layer in figures['attention']['layers']:
            distance, nmi = layer['distance'], layer['nmi']
            row = [f'{v:.1f}' for v in (layer['distance_mean'], min(distance), max(distance))]
            row += [f'{v:.4f}' for v in (layer['nmi_mean'], min(nmi), max(nmi))]
            table.append((str(layer['block']), *row))
        tables.append(table)
    names, *rows = [tuple(figures['features'][0]), *(s.values() for s in figures['features'])]
    tables.append([names, *([_cell(value) for value in row] for row in rows)])
    return '\n\n'.join(map(_aligned, tables))


def _cell(value: str | float | None) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return '\n'.join(
        '  '.join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in rows
    )


def _stage_tokens(
    loaded: LoadedNetwork,
    images: Tensor,
    blocks: Mapping[int, nn.Module],
    layout: TokenLayout | None,
) -> dict[str, Tensor]:
    """Name to (B, n, D) tokens of each stage."""
    if layout is not None:
        with _outputs_of(blocks) as outputs:
            loaded.run(images)
        return {f'block {index}': tokens[:, layout.prefix :] for index, tokens in outputs.items()}
    output = loaded.run(images)
    if isinstance(output, TeacherOutput):
        output = output.tokens
    maps = output if isinstance(output, list | tuple) else [output]
    stages = {}
    for index, features in enumerate(maps):
        name = f'output {index + 1} of {len(maps)}'
        if isinstance(features, Tensor) and features.dim() == 4:
            name += f', {features.shape[2]} x {features.shape[3]}'
            stages[name] = features.flatten(2).transpose(1, 2)
        else:
            stages[name] = pool_features(features).unsqueeze(1)
    return stages


@contextmanager
def _outputs_of(blocks: Mapping[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    outputs: dict[int, Tensor] = {}

    def keep(index: int, _block: nn.Module, _inputs: tuple, output: Tensor) -> None:
        outputs[index] = output

    with ExitStack() as hooks:
        for index, block in blocks.items():
            hooks.callback(block.register_forward_hook(partial(keep, index)).remove)
        yield outputs
