"""Tables over several seeds: means, standard deviations, and the seeds that were asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from mmengine.device import get_device
from rich.console import Console
from rich.table import Table

from hgkd_mm.benchmark import versions


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds.

    Attributes:
        mean: of the values.
        std: with n - 1 in the denominator; 0 for a single value.
        values: one a seed.
    """

    mean: float
    std: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f'{self.mean:.1f} ± {self.std:.1f}' if len(self.values) > 1 else f'{self.mean:.1f}'


SpreadTable = dict[str, dict[str, Spread]]


def over_seeds(scores: Sequence[Mapping[str, Mapping[str, float]]]) -> SpreadTable:
    """Joins the tables of several seeds.

    Args:
        scores: for each seed, row to column to value; all have the same rows and columns.

    Raises:
        ValueError: no table, or tables of different rows or columns.
    """
    shapes = {tuple((row, *columns) for row, columns in table.items()) for table in scores}
    if len(shapes) != 1:
        raise ValueError(
            f'Tables of {len(scores)} seeds can be joined if they have the same rows and columns; '
            f'these have {len(shapes)} kinds: run all seeds with the same tasks.'
        )
    return {
        row: {column: _spread([table[row][column] for table in scores]) for column in columns}
        for row, columns in scores[0].items()
    }


def print_transfer_table(table: SpreadTable, title: str) -> None:
    """Prints mean and standard deviation of every row and column."""
    shown = Table(title=title)
    shown.add_column('start of the backbone')
    for column in next(iter(table.values())):
        shown.add_column(column, justify='right')
    for row, columns in table.items():
        shown.add_row(row, *map(str, columns.values()))
    Console(width=120).print(shown)


def write_seeds_summary(path: Path, table: SpreadTable, **facts: object) -> None:
    """Writes means, standard deviations, single values, and versions of packages as JSON."""
    record = {
        'scores': {
            row: {column: vars(spread) for column, spread in columns.items()}
            for row, columns in table.items()
        },
        **facts,
        'versions': versions(get_device()),
    }
    path.write_text(json.dumps(record, indent=2, default=str))


def _spread(values: list[float]) -> Spread:
    return Spread(mean(values), stdev(values) if len(values) > 1 else 0.0, tuple(values))
