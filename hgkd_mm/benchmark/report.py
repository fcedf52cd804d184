"""Tables of what was measured, and the record of all stages on disk."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hgkd_mm.utils.files import write_whole

from .timing import Measurement, Settings, peak_bytes

RAN, FAILED, LEFT_OUT, CUT = 'ran', 'failed', 'left out', 'cut'


class LeftOutError(Exception):
    """A measurement cannot run here; the text says why and what it needs."""


def milliseconds(seconds: float) -> str:
    """A time for a table: three digits, or whole milliseconds from 100 on."""
    time = 1000 * seconds
    return f'{time:.0f}' if time >= 100 else f'{time:.3g}'


def mebibytes(count: int | None) -> str:
    """A size for a table; empty if it is not known."""
    return '' if count is None else f'{count / 2**20:.0f}'


@dataclass
class Report:
    """A table, and the same as records for JSON; the first row gives the columns."""

    title: str
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)

    def add(self, cells: dict[str, object], record: dict | None = None) -> None:
        """Adds a row, by column, and what is recorded of it."""
        self.columns = self.columns or tuple(cells)
        self.rows.append(tuple(map(str, cells.values())))
        if record is not None:
            self.records.append(record)

    def add_step(
        self,
        result: Measurement,
        step: Callable[[], object],
        settings: Settings,
        reference: str,
        *,
        case: dict[str, object] | None = None,
        cells: dict[str, object] | None = None,
        record: dict[str, object] | None = None,
    ) -> None:
        """Adds times and speed of a step, and on a GPU the peak memory of one more.

        ``case`` stands in front of the row and in the record; ``cells`` and ``record`` end them.
        """
        peak = peak_bytes(step, settings)
        speed = settings.batch / result.median
        low, high = (milliseconds(edge(result.seconds)) for edge in (min, max))
        row = {key.replace('_', ' '): value for key, value in (case or {}).items()}
        row |= {
            'step': result.name,
            'ms': milliseconds(result.median),
            'range': f'{low}-{high}',
            f'ratio to {reference}': f'{result.ratio:.3f}',
            'ratio range': f'{result.low:.3f}-{result.high:.3f}',
        }
        if settings.cuda:
            row['ms to queue'] = milliseconds(statistics.median(result.queued))
            row['peak MiB'] = mebibytes(peak)
        row['images/s'] = f'{speed:.3g}' if speed < 100 else f'{speed:.0f}'
        measured = {**vars(result), 'peak_bytes': peak, 'images_per_second': speed}
        self.add({**row, **(cells or {})}, {**(case or {}), **measured, **(record or {})})


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
    tables: list[Report] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    status: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def table(self, title: str, columns: tuple[str, ...] = ()) -> Report:
        self.tables.append(Report(title, columns))
        return self.tables[-1]

    def out_of_time(self, what: str, kept: float = 0.0) -> bool:
        """Whether the share, less the seconds ``kept``, is used up; notes what is left out."""
        if self.share_end - time.monotonic() > kept:
            return False
        self.notes.append(f"Not measured, the stage's share of the time is used up: {what}.")
        return True

    def markdown(self) -> str:
        """Heading, tables and notes, as docs/gpu.md has them."""
        lines = [f'## {self.name}: {self.status}, {self.seconds:.0f} s', '']
        if self.reason:
            lines += [self.reason, '']
        for table in filter(lambda table: table.rows, self.tables):
            lines += [table.title, '', _line(table.columns), _line('---' for _ in table.columns)]
            lines += [*map(_line, table.rows), '']
        notes = [*self.broken, *self.notes]
        return '\n'.join(lines + [f'- {note}' for note in notes] + [''] * bool(notes))

    def record(self) -> dict:
        whole = asdict(self) | {'seconds': round(self.seconds, 1)}
        keys = ('status', 'reason', 'seconds', 'tables', 'notes', 'broken')
        return {key: whole[key] for key in keys}


class Recorder:
    """Writes gpu_check.json and gpu_check.md, and prints each stage when it ends.

    Two threads use it, that of the stages and that of the deadline.
    """

    def __init__(self, out: Path, machine: dict) -> None:
        self.out, self.machine = out, machine
        self.stages: list[Stage] = []
        self._lock = threading.RLock()
        self._closed = False
        self._head = '\n'.join(['# GPU check', '', *(f'- {k}: {v}' for k, v in machine.items())])
        print(self._head, end='\n\n', flush=True)

    def begin(self, name: str, share_end: float) -> Stage:
        with self._lock:
            self.stages.append(Stage(name, share_end))
            return self.stages[-1]

    def finish(self, stage: Stage, status: str, reason: str | None = None) -> None:
        """Records how a stage ended, unless the deadline has already done so."""
        with self._lock:
            if stage.status is not None or self._closed:
                return
            stage.status, stage.reason = status, reason
            stage.seconds = time.monotonic() - stage.started
            print(stage.markdown(), flush=True)
            self._write()

    def cut(self, reason: str) -> None:
        """Records that the stage that runs is cut, with what it has measured."""
        with self._lock:
            for stage in self.stages:
                self.finish(stage, CUT, reason)
            self._closed = True  # the files of a stage that goes on may be gone

    @property
    def failed(self) -> bool:
        return any(stage.status == FAILED for stage in self.stages)

    def _write(self) -> None:
        done = [stage for stage in self.stages if stage.status]
        record = {'machine': self.machine, 'stages': {s.name: s.record() for s in done}}
        write_whole(self.out / 'gpu_check.json', json.dumps(record, indent=1).encode())
        shown = [self._head, *(stage.markdown() for stage in done)]
        write_whole(self.out / 'gpu_check.md', '\n\n'.join(shown).encode())


def _line(cells: Iterable[object]) -> str:
    return '| ' + ' | '.join(str(cell).strip().replace('|', r'\|') for cell in cells) + ' |'
