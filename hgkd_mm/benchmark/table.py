"""What is measured, and the table that tells of it. Needs torch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .timing import Measurement

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        network: a name of ``NETWORKS``.
        batch: images a step.
        size: image side, pixels.
        cell: mask cell side, pixels.
        mask_ratio: hidden fraction.
        dtype: float32, or bfloat16 for autocast.
        device: 'cpu' or 'cuda'.
        rounds: measured rounds.
    """

    network: str = 'resnet50'
    batch: int = 8
    size: int = 224
    cell: int = 32
    mask_ratio: float = 0.6
    dtype: torch.dtype = torch.float32
    device: str = 'cpu'
    rounds: int = 9

    def encoder(self, mask_ratio: float | None = None) -> dict:
        """Arguments of ``encoder_steps``."""
        return dict(
            batch=self.batch,
            size=self.size,
            cell=self.cell,
            mask_ratio=self.mask_ratio if mask_ratio is None else mask_ratio,
            dtype=self.dtype,
            device=self.device,
        )

    @property
    def title(self) -> str:
        """Of a table about one encoder."""
        dtype = str(self.dtype).removeprefix('torch.')
        return f'{self.network}, batch {self.batch}, {self.size} px, {dtype}'


def milliseconds(seconds: float) -> str:
    """A time for a table: three digits, or whole milliseconds from 100 on."""
    time = 1000 * seconds
    return f'{time:.0f}' if time >= 100 else f'{time:.3g}'


@dataclass
class Report:
    """A table, and the same as records for JSON."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)

    def add(self, result: Measurement, cells: Sequence[str], record: dict) -> None:
        """One alternative: its times, then what else the columns tell of it."""
        times = milliseconds(result.median), f'{result.ratio:.3f}'
        spread = f'{result.low:.3f}-{result.high:.3f}'
        self.rows.append((result.name, *times, spread, *cells))
        self.records.append({**vars(result), **record})
