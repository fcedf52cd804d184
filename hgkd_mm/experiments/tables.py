"""Tables of results: printed, joined over seeds, and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from mmengine.device import get_device
from rich.console import Console
from rich.table import Table

from hgkd_mm.benchmark import versions

Scores = Mapping[str, Mapping[str, float]]  # row to column to percent


def over_seeds(tables: Sequence[Scores]) -> dict[str, dict[str, list[float]]]:
    """Row to column to the values of some seeds, whose tables have the same rows and columns."""
    return {
        row: {column: [table[row][column] for table in tables] for column in columns}
        for row, columns in tables[0].items()
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, 0 for a single value."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def print_table(title: str, tables: Sequence[Scores], *, head: str) -> None:
    """Prints mean and standard deviation over some seeds; ``head`` is above the row names."""
    shown = Table(title=title)
    shown.add_column(head)
    for column in next(iter(tables[0].values())):
        shown.add_column(column, justify='right')
    figure = '{:.1f} ± {:.1f}' if len(tables) > 1 else '{:.1f}'
    for row, columns in over_seeds(tables).items():
        shown.add_row(row, *(figure.format(*spread(values)) for values in columns.values()))
    Console(width=120).print(shown)


def write_summary(path: Path, tables: Sequence[Scores], **facts: object) -> None:
    """Writes means, deviations and single values of some seeds, with versions, as JSON."""
    scores = {
        row: {
            column: dict(zip(('mean', 'std'), spread(values), strict=True), values=values)
            for column, values in columns.items()
        }
        for row, columns in over_seeds(tables).items()
    }
    record = {'scores': scores, **facts, 'versions': versions(get_device())}
    path.write_text(json.dumps(record, indent=2, default=str))
