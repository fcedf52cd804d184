"""Tables of what was measured, and the record of all stages on disk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hgkd_mm.utils.files import write_whole

RAN, FAILED, LEFT_OUT, CUT = 'ran', 'failed', 'left out', 'cut'


@dataclass
class Table:
    """Rows by column; lists and mappings in them are for JSON alone."""

    title: str
    rows: list[dict[str, object]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Those of the first row."""
        first = self.rows[0] if self.rows else {}
        return [key for key, value in first.items() if not isinstance(value, list | dict)]

    def cells(self) -> list[list[str]]:
        return [[shown(row.get(column)) for column in self.columns] for row in self.rows]


def shown(value: object) -> str:
    """A value for a table: of a number three digits, or all before the point."""
    if isinstance(value, float):
        return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
    return '' if value is None else str(value)


@dataclass
class Stage:
    """One measurement; filled as it goes, so that one that is cut keeps its part.

    Attributes:
        share_end: when its share of the time is used up, by ``time.monotonic``.
        notes: sentences beside the tables.
        broken: sentences about what must not be; any makes the stage fail.
        status: 'ran', 'failed', 'left out', 'cut'; None while it runs.
        reason: why it did not just run.
    """

    name: str
    share_end: float = float('inf')
    status: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def table(self, title: str) -> Table:
        self.tables.append(Table(title))
        return self.tables[-1]

    def out_of_time(self, what: str) -> bool:
        """Whether the share is used up; notes what is left out."""
        if time.monotonic() < self.share_end:
            return False
        self.notes.append(f"Not measured, the stage's share of the time is used up: {what}.")
        return True

    def markdown(self) -> str:
        """Heading, tables and notes, as docs/gpu.md has them."""
        lines = [f'## {self.name}: {self.status}, {self.seconds:.0f} s', '']
        if self.reason:
            lines += [self.reason, '']
        for table in filter(lambda table: table.rows, self.tables):
            rows = [table.columns, ['---'] * len(table.columns), *table.cells()]
            lines += [table.title, '', *map(_line, rows), '']
        notes = [*self.broken, *self.notes]
        return '\n'.join(lines + [f'- {note}' for note in notes] + [''] * bool(notes))

    def record(self) -> dict:
        """What is kept of it as JSON."""
        return {k: v for k, v in asdict(self).items() if k not in ('share_end', 'started')}


class Recorder:
    """Writes gpu_check.json and gpu_check.md, and prints each stage when it ends.

    Two threads use it, that of the stages and that of the deadline.
    """

    def __init__(self, out: Path, machine: dict) -> None:
        self.out, self.machine = out, machine
        self.stages: list[Stage] = []
        self.lock = threading.RLock()
        self._head = '\n'.join(['# GPU check', '', *(f'- {k}: {v}' for k, v in machine.items())])
        print(self._head, end='\n\n', flush=True)

    def begin(self, name: str, share_end: float) -> Stage:
        self.stages.append(Stage(name, share_end))
        return self.stages[-1]

    def finish(self, stage: Stage, status: str, reason: str | None = None) -> None:
        with self.lock:
            stage.status, stage.reason = status, reason
            stage.seconds = round(time.monotonic() - stage.started, 1)
            print(stage.markdown(), flush=True)
            done = [one for one in self.stages if one.status]
            record = {'machine': self.machine, 'stages': {one.name: one.record() for one in done}}
            write_whole(self.out / 'gpu_check.json', json.dumps(record, indent=1).encode())
            shown = [self._head, *(one.markdown() for one in done)]
            write_whole(self.out / 'gpu_check.md', '\n\n'.join(shown).encode())

    @property
    def failed(self) -> bool:
        return any(stage.status == FAILED for stage in self.stages)


def _line(cells: Iterable[str]) -> str:
    return '| ' + ' | '.join(cell.strip().replace('|', r'\|') for cell in cells) + ' |'
