"""The figures of an analysis as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FEATURES = (
    'channels',
    'effective_rank',
    'rankme',
    'token_similarity',
    'uniformity',
    'alignment_mirrored',
    'class_separability',
    'knn_top1',
)


def figures_table(figures: Mapping[str, Any]) -> str:
    """Two tables in columns of equal width: attention by block, features by stage.

    Args:
        figures: as `analyze` gives them.
    """
    lines = []
    if figures['attention'] is not None:
        heading = ('block', 'distance, px', 'least head', 'most', 'NMI', 'least head', 'most')
        rows = [
            (
                str(layer['block']),
                *(f'{value:.1f}' for value in _spread(layer['distance'])),
                *(f'{value:.4f}' for value in _spread(layer['nmi'])),
            )
            for layer in figures['attention']['layers']
        ]
        lines += [*_aligned([heading, *rows]), '']
    rows = [
        (stage['stage'], *(_number(stage[name]) for name in _FEATURES))
        for stage in figures['features']
    ]
    return '\n'.join([*lines, *_aligned([('stage', *_FEATURES), *rows])])


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return sum(values) / len(values), min(values), max(values)


def _number(value: float | None) -> str:
    if value is None:
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.3f}'


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '.join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
