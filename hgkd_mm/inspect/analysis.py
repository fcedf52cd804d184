"""Statistics of a network's attention and features over images, as JSON, table and picture."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from rich.table import Table
from torch import Tensor, nn

from hgkd_mm.evaluation import (
    class_separability,
    effective_rank,
    eval_mode,
    patch_distances,
    pool_features,
    token_similarity,
)
from hgkd_mm.models.outputs import TeacherOutput
from hgkd_mm.utils.files import write_whole

from .attention import TokenLayout, attention_layers, draw_curves, token_layout
from .images import Size, load_folder_images, training_size
from .networks import load_student, load_teacher, run_whole

_BATCH = 16


def analyze(
    config: Config,
    *,
    folder: str | Path,
    out: str | Path,
    checkpoint: str | None = None,
    teacher: str | None = None,
    count: int = 256,
    size: Size | None = None,
    seed: int = 0,
    device: str = 'cpu',
    trust_checkpoint: bool = False,
) -> dict[str, Any]:
    """Analyzes the backbone of a config, or one of its teachers.

    Writes ``analysis.json``, and for a vision transformer ``layers.png`` (`draw_curves`).

    Args:
        config: of mmpretrain, mmdet or mmseg.
        folder: with images; class subfolders are their labels.
        out: folder to write into.
        checkpoint: weights of the model or of its backbone.
        teacher: name of a teacher in the config, which has weights of its own; instead.
        count: number of images.
        size: (H, W) that images are cropped to; by default that of training.
        seed: of the choice of images.
        device: to compute on.
        trust_checkpoint: allow the checkpoint to run pickled code.

    Returns:
        The contents of the JSON file.

    Raises:
        OSError, RuntimeError, ValueError: an argument is wrong; nothing is written.
    """
    if teacher is not None:
        loaded = load_teacher(config, teacher)
    else:
        loaded = load_student(config, checkpoint, trust_checkpoint=trust_checkpoint)
    size = size or training_size(config)
    images = load_folder_images(folder, count=count, size=size, seed=seed)
    classes, labels = images.classes()
    try:
        layout = token_layout(loaded.network, size)
    except TypeError as error:
        layout = None
        print_log(f'Features only, without attention: {error}')

    network = loaded.network.to(device)
    batches = partial(images.batches, loaded.input_format, size=_BATCH, device=device)
    stages = collect_features(network, batches(), layout)
    figures = {
        'config': str(config.filename),
        'network': loaded.title,
        'images': {
            'folder': str(images.folder),
            'count': len(images.paths),
            'size': list(size),
            'seed': seed,
            'classes': classes,
        },
        'attention': None,
        'features': [{'stage': name} | feature_figures(*stages[name], labels) for name in stages],
    }
    if layout is not None:
        uniform = layout.stride * patch_distances(layout.grid).mean().item()
        layers = attention_layers(network, layout, batches())
        figures['attention'] = {
            'grid': list(layout.grid),
            'prefix_tokens': layout.prefix,
            'patch_px': layout.stride,
            'uniform_distance_px': uniform,
            'layers': layers,
        }
        draw_curves(layers, Path(out, 'layers.png'), title=loaded.title, uniform=uniform)
    content = json.dumps(figures, indent=1, allow_nan=False) + '\n'
    write_whole(Path(out, 'analysis.json'), content.encode())
    return figures


def collect_features(
    network: nn.Module, batches: Iterable[Tensor], layout: TokenLayout | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Features of N images at each output of a network, or each block of a vision transformer.

    Args:
        network: a backbone or a teacher.
        batches: (b, 3, H, W) normalized images, at least one.
        layout: of a vision transformer; patch tokens before its final norm are taken.

    Returns:
        Name to (N, D) float32 means over positions and (N,) `token_similarity`.

    Raises:
        ValueError: the network's outputs are neither (B, C, H, W) maps nor (B, D) matrices.
    """
    parts: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    with torch.no_grad(), eval_mode(network):
        for images in batches:
            if layout is None:
                stages = _output_tokens(run_whole(network, images))
            else:
                stages = _block_tokens(network, images, layout)
            for name, tokens in stages.items():
                similarity = token_similarity(tokens).cpu()
                parts[name].append((tokens.mean(1).float().cpu(), similarity))
    return {name: tuple(map(torch.cat, zip(*pairs, strict=True))) for name, pairs in parts.items()}


def feature_figures(
    pooled: Tensor, similarity: Tensor, labels: Tensor | None
) -> dict[str, float | None]:
    """Figures of one stage, by the names of the literature.

    Args:
        pooled: (N, D) features of N images.
        similarity: (N,) `token_similarity`.
        labels: (N,) class indices, if they are known.

    Returns:
        Name to number; None if it is not available, or not finite, which JSON cannot express.
    """
    figures = {
        'channels': pooled.shape[1],
        'effective_rank': effective_rank(pooled),
        'token_similarity': similarity.mean().item(),
        'class_separability': math.nan if labels is None else class_separability(pooled, labels),
    }
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def figures_table(figures: Mapping[str, Any]) -> Table:
    """The figures of `analyze` with a row for each stage."""
    rows = figures['features']
    if figures['attention'] is not None:
        rows = [
            row | {'distance, px': layer['distance_mean'], 'NMI': layer['nmi_mean']}
            for row, layer in zip(rows, figures['attention']['layers'], strict=True)
        ]
    table = Table(*(name.replace('_', ' ') for name in rows[0]), box=None)
    for row in rows:
        table.add_row(*(f'{v:.3f}' if isinstance(v, float) else str(v) for v in row.values()))
    return table


def _block_tokens(network: nn.Module, images: Tensor, layout: TokenLayout) -> dict[str, Tensor]:
    """Name to (B, n, D) patch tokens of each block."""
    tokens: dict[str, Tensor] = {}

    def keep(name: str, _block: nn.Module, _inputs: tuple, output: Tensor) -> None:
        tokens[name] = output[:, layout.prefix :]

    with ExitStack() as hooks:
        for index, block in enumerate(layout.blocks):
            hook = block.register_forward_hook(partial(keep, f'block {index}'))
            hooks.callback(hook.remove)
        run_whole(network, images)
    return tokens


def _output_tokens(output: Any) -> dict[str, Tensor]:
    """Name to (B, n, D) positions of each output map; one position of a vector."""
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
