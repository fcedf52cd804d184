"""Runs the stages one after the other within a time."""

from __future__ import annotations

import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .context import Context, Findings, LeftOutError
from .encoder import encoder
from .methods import methods
from .parity import parity
from .precision import free_memory
from .profile import profile
from .record import CUT, FAILED, LEFT_OUT, RAN, Recorder
from .sizes import Sizes
from .step import step
from .training import training

StageFunction = Callable[[Context, Findings], None]

# The most telling first. The number is the stage's share of the time; what a stage leaves of it
# goes to the later ones.
STAGES: dict[str, tuple[StageFunction, int]] = {
    'parity': (parity, 28),
    'encoder': (encoder, 115),
    'methods': (methods, 30),
    'profile': (profile, 10),
    'step': (step, 20),
    'training': (training, 80),
}
# Seconds kept for what a stage does between two looks at the clock, and for the last file.
RESERVE = 10.0
CUT_STATUS = 3


def run_stages(
    names: Sequence[str],
    recorder: Recorder,
    *,
    device: str,
    sizes: Sizes,
    scratch: Path,
    end: float,
) -> None:
    """Runs stages in the order of ``STAGES``; an error ends its stage only.

    Args:
        names: which.
        recorder: is told how each ended.
        device: 'cpu' or a CUDA device.
        sizes: of all that is measured.
        scratch: folder for files that nobody keeps.
        end: by when all of them are to be done, by ``time.monotonic``.
    """
    chosen = [name for name in STAGES if name in names]
    for place, name in enumerate(chosen):
        function, weight = STAGES[name]
        weights = sum(STAGES[later][1] for later in chosen[place:])
        now = time.monotonic()
        share = max(0.0, end - RESERVE - now) * weight / weights
        context = Context(device, sizes, scratch, now + share, end)
        stage = recorder.begin(name)
        try:
            function(context, stage.findings)
        except LeftOutError as error:
            recorder.finish(stage, LEFT_OUT, str(error))
        except torch.cuda.OutOfMemoryError as error:
            recorder.finish(stage, LEFT_OUT, f'It needs more memory than there is: {error}')
        except Exception as error:  # whatever it is, what else can be measured is
            traceback.print_exc()
            recorder.finish(stage, FAILED, f'{type(error).__name__}: {error}')
        else:
            measured = any(table.rows for table in stage.findings.tables)
            if stage.findings.broken:
                recorder.finish(stage, FAILED)
            elif measured:
                recorder.finish(stage, RAN)
            else:
                recorder.finish(stage, CUT, 'Nothing was measured in its share of the time.')
        free_memory()  # of what the stage's own frame held


def end_at(end: float, minutes: float, recorder: Recorder, scratch: Path) -> threading.Timer:
    """Starts a thread that ends the process with status 3 at a time, whatever it is doing.

    Args:
        end: the time, by ``time.monotonic``.
        minutes: what the command was given, for the sentence.
        recorder: writes what there is.
        scratch: folder that is removed.

    Returns:
        The thread; ``cancel`` it when all is done.
    """

    def leave() -> None:
        try:
            recorder.cut(f'The {minutes:g} minutes of the whole command were over (--minutes).')
            shutil.rmtree(scratch, ignore_errors=True)
        finally:
            # The main thread may be waiting for the device and would not see an exception.
            os._exit(CUT_STATUS)

    timer = threading.Timer(max(0.0, end - time.monotonic()), leave)
    timer.daemon = True
    timer.start()
    return timer
