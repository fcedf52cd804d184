"""What was found, on disk after every stage: gpu_check.json and gpu_check.md."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hgkd_mm.utils.files import write_whole

from .context import Findings

RAN, FAILED, LEFT_OUT, CUT = 'ran', 'failed', 'left out', 'cut'


@dataclass
class Stage:
    """One stage as it is recorded.

    Attributes:
        name: of the stage.
        findings: what it handed back so far.
        status: 'ran', 'failed', 'left out', 'cut'; None while it runs.
        reason: why it did not just run.
        seconds: how long it took.
    """

    name: str
    findings: Findings
    status: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def markdown(self) -> str:
        """Heading, tables and notes, as docs/gpu.md has them."""
        lines = [f'## {self.name}: {self.status}, {self.seconds:.0f} s', '']
        if self.reason:
            lines += [f'{self.reason}', '']
        for table in self.findings.tables:
            lines += [table.title, '', _line(table.columns), _line('---' for _ in table.columns)]
            lines += [*map(_line, table.rows), '']
        notes = [*self.findings.broken, *self.findings.notes]
        return '\n'.join(lines + [f'- {note}' for note in notes] + [''] * bool(notes))

    def record(self) -> dict:
        """For JSON."""
        tables = [asdict(table) for table in self.findings.tables]
        return {
            'status': self.status,
            'reason': self.reason,
            'seconds': round(self.seconds, 1),
            'tables': tables,
            'notes': self.findings.notes,
            'broken': self.findings.broken,
        }


class Recorder:
    """Writes what is known, and prints each stage when it ends.

    Two threads use it, that of the stages and that of the deadline.

    Args:
        out: folder of both files.
        machine: what ``describe`` says.
    """

    def __init__(self, out: Path, machine: dict) -> None:
        self.out, self.machine = out, machine
        self.stages: list[Stage] = []
        self._lock = threading.RLock()
        self._closed = False
        self._head = '\n'.join(['# GPU check', '', *(f'- {k}: {v}' for k, v in machine.items())])
        print(self._head, end='\n\n', flush=True)

    def begin(self, name: str) -> Stage:
        """A stage that now starts."""
        with self._lock:
            self.stages.append(Stage(name, Findings()))
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
        """Whether a stage failed."""
        return any(stage.status == FAILED for stage in self.stages)

    def _write(self) -> None:
        stages = {stage.name: stage.record() for stage in self.stages if stage.status}
        record = {'machine': self.machine, 'stages': stages}
        write_whole(self.out / 'gpu_check.json', json.dumps(record, indent=1).encode())
        shown = [self._head, *(stage.markdown() for stage in self.stages if stage.status)]
        write_whole(self.out / 'gpu_check.md', '\n\n'.join(shown).encode())


def _line(cells: object) -> str:
    return '| ' + ' | '.join(str(cell).strip().replace('|', r'\|') for cell in cells) + ' |'
