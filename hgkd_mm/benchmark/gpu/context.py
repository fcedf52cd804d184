"""What a stage is told, what it hands back, and how it says that it cannot run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..table import Report, Settings
from .sizes import Sizes


class LeftOutError(Exception):
    """A stage cannot run here; the text says why and what it needs."""


@dataclass(frozen=True)
class Context:
    """What a stage is told.

    Attributes:
        device: 'cpu' or a CUDA device.
        sizes: of all that is measured.
        scratch: a folder for files that nobody keeps.
        stage_end: when the stage's share of the time is used up, by ``time.monotonic``.
        end: when the time of the whole command is.
    """

    device: str
    sizes: Sizes
    scratch: Path
    stage_end: float
    end: float

    @property
    def cuda(self) -> bool:
        """Whether the device is a CUDA device."""
        return self.device.startswith('cuda')

    @property
    def stage_left(self) -> float:
        """Seconds left of the stage's share."""
        return self.stage_end - time.monotonic()

    @property
    def left(self) -> float:
        """Seconds left of the whole command's time."""
        return self.end - time.monotonic()

    def settings(self, **changes: object) -> Settings:
        """Those of the encoder with changes."""
        sizes = self.sizes
        common = Settings(
            batch=sizes.batch,
            size=sizes.image,
            dtype=sizes.dtype,
            device=self.device,
            rounds=sizes.rounds,
        )
        return replace(common, **changes)


@dataclass
class Findings:
    """What a stage hands back; filled as it goes, so that a stage that is cut keeps its part.

    Attributes:
        tables: what was measured.
        notes: sentences beside the tables.
        broken: sentences about what must not be; any makes the stage fail.
    """

    tables: list[Report] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def table(self, title: str, columns: tuple[str, ...]) -> Report:
        """A new table, empty."""
        self.tables.append(Report(title, columns))
        return self.tables[-1]

    def out_of_time(self, context: Context, what: str, kept: float = 0.0) -> bool:
        """Whether the stage's share is used up; if so a note says what is left out for it.

        Args:
            context: tells the time.
            what: would come next.
            kept: seconds of the share that are for something later.
        """
        if context.stage_left > kept:
            return False
        self.notes.append(f"Not measured, the stage's share of the time is used up: {what}.")
        return True
