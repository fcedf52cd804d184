"""All measurements on one device as stages within a time: ``tools/gpu_check.py``."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from hgkd_mm.experiments import CONFIGS

from .encoder import COMPILED, GRAPH, SPARK, SPARK_NETWORKS, measure_encoder
from .methods import CONVOLUTIONS, measure_methods
from .parity import measure_parity
from .profile import add_waits, measure_kernels
from .report import CUT, FAILED, LEFT_OUT, RAN, Recorder, Stage
from .timing import Settings, backends, free_memory

# Seconds kept for what a stage does between two looks at the clock, and for the last file.
RESERVE = 10.0
CUT_STATUS = 3
FLAGSHIP = CONFIGS / 'pretrain' / 'hgkd_r50_mae.py'
NEEDED = (
    'mmengine, mmcv and mmpretrain are needed ({}): install them, or give --wheels DIR, which '
    'tools/gpu_wheels.sh fills.'
)
BF16, FP32 = torch.bfloat16, torch.float32


@dataclass(frozen=True, kw_only=True)
class Check:
    """The stages as methods; the sizes of all that is measured are those of a training.

    Attributes:
        scratch: folder for what a stage writes.
        settings: of all stages; bfloat16, for which many a CPU has no convolutions.
        parity_of: timm's networks that are compared with float64, and images of a batch of them.
        encoders: network, batch and type of the encoders that are timed, the most telling first.
        compiled: whether the dense step of the first encoder is also compiled.
        layers: how many of ``CONVOLUTIONS`` are measured.
        vit: the teacher, as mmpretrain's ``VisionTransformer`` takes it.
        options: changes of the flagship's config.
        limits: arguments of ``measure_training``.
    """

    scratch: Path
    settings: Settings = Settings(batch=256, dtype=BF16, rounds=8)
    parity_of: tuple[tuple[str, ...], int] = (('resnet50', 'convnext_tiny', 'mobilenetv2_100'), 8)
    encoders: tuple[tuple[str, int, torch.dtype], ...] = (
        ('resnet50', 256, BF16),
        ('resnet50', 256, FP32),
        ('resnet50', 64, BF16),
        ('resnet18', 256, BF16),
        ('convnext_tiny', 256, BF16),
        ('mobilenetv2_100', 256, BF16),
        ('resnet18', 256, FP32),
        ('convnext_tiny', 256, FP32),
    )
    compiled: bool = True
    layers: int | None = None
    vit: str | dict = 'base'
    options: dict[str, object] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    @classmethod
    def small(cls, scratch: Path) -> Check:
        """With tiny networks and images, for a test on a CPU."""
        teacher = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 48}
        return cls(
            scratch=scratch,
            settings=Settings(batch=2, size=64, rounds=1, warmup=1),
            parity_of=(('resnet10t', 'convnext_atto'), 2),
            encoders=(('resnet18', 2, FP32), ('mobilenetv2_050', 2, FP32)),
            compiled=False,
            layers=1,
            vit=teacher,
            options={
                'model.backbone.depth': 18,
                'model.backbone.drop_path_rate': 0.0,
                'model.teachers.mim.arch': {'_delete_': True, **teacher},
                'model.heads.sim.queue_size': 64,
            },
            limits={'images': 12, 'seconds': 60.0, 'steps': 4, 'warmup': 1},
        )

    def parity(self, stage: Stage) -> None:
        networks, batch = self.parity_of
        measure_parity(stage, replace(self.settings, batch=batch), networks)

    def encoder(self, stage: Stage) -> None:
        """Dense, what there was for masked images before, and tiles."""
        table = stage.table(f'Forward and backward of the encoder, {self.settings.size} px')
        try:
            import mmpretrain.models  # noqa: F401

            known = tuple(SPARK_NETWORKS)
        except ModuleNotFoundError as error:
            stage.notes.append(f'masked_dense stands in for {SPARK}: {NEEDED.format(error)}')
            known = ()
        for case, kinds in self._encoders(known):
            name = f'{case.network}, {case.title}, {kinds[-1]}'
            if stage.out_of_time(name):
                continue
            try:
                measure_encoder(table, case, kinds)
            except torch.cuda.OutOfMemoryError as error:
                stage.notes.append(f'Not measured for want of memory: {name} ({error}).')
            except Exception as error:  # one leaves the others
                # Compiling needs a C compiler, among others.
                noted = stage.notes if COMPILED in kinds else stage.broken
                noted.append(f'{name}: {type(error).__name__}: {str(error)[:300]}')
            free_memory()

    def _encoders(self, known: Sequence[str]) -> Iterator[tuple[Settings, tuple[str, ...]]]:
        """Settings and kinds of steps; ``known`` are the networks that SparK can train."""
        for place, (network, batch, dtype) in enumerate(self.encoders):
            case = replace(self.settings, network=network, batch=batch, dtype=dtype)
            # What masks a dense map takes nearly as long whatever is hidden: once is enough.
            yield case, ('dense', SPARK if network in known else 'masked_dense', 'tiles')
            yield replace(case, mask_ratio=0.75), ('dense', 'tiles')
            yield case, ('dense', GRAPH)  # alone, since its memory stays reserved
            if self.compiled and place == 0:
                yield case, ('dense', COMPILED)

    def methods(self, stage: Stage) -> None:
        layers = CONVOLUTIONS[: self.layers]
        measure_methods(stage, replace(self.settings, rounds=2), layers)

    def profile(self, stage: Stage) -> None:
        settings = replace(self.settings, network=self.encoders[0][0], rounds=3)
        steps = measure_kernels(stage, settings, ('tiles', 'dense'))
        if not settings.cuda:
            stage.notes.append('A CPU is not waited for: synchronizations were not counted.')
            return
        waits = stage.table('Where the host waits for the device')
        count = add_waits(waits, 'encoder, tiles', steps['tiles'])
        if count:
            stage.broken.append(f'The encoder step waits for the device {count} times.')
        del steps
        free_memory()
        if stage.out_of_time('waits of the whole step'):
            return
        try:
            from .step import add_step_waits

            add_step_waits(waits, self.settings, self.flagship(), self.vit)
        except ModuleNotFoundError as error:
            why = NEEDED.format(error)
            stage.notes.append(f'Waits of the whole step were not counted: {why}')

    def step(self, stage: Stage) -> None:
        from .step import measure_step

        measure_step(stage, self.settings, self.flagship(), self.vit)

    def training(self, stage: Stage) -> None:
        from .training import measure_training

        measure_training(
            stage, self.settings, self.flagship(), self.vit, self.scratch, **self.limits
        )

    def flagship(self) -> Path:
        """The flagship's config in the sizes of this check, as a file of its own."""
        import hgkd_mm.models  # noqa: F401  registers
        from hgkd_mm.utils.launch import load_config

        path = self.scratch / FLAGSHIP.name
        load_config(str(FLAGSHIP), self.options).dump(path)
        return path


# The most telling first. The number is the stage's share of the time; what a stage leaves of it
# goes to the later ones.
STAGES: dict[str, tuple[Callable[[Check, Stage], None], int]] = {
    'parity': (Check.parity, 28),
    'encoder': (Check.encoder, 115),
    'methods': (Check.methods, 30),
    'profile': (Check.profile, 10),
    'step': (Check.step, 20),
    'training': (Check.training, 80),
}


def run_stages(names: Sequence[str], recorder: Recorder, check: Check, end: float) -> None:
    """Runs stages in the order of ``STAGES``; an error ends its stage only.

    Args:
        names: of the stages.
        recorder: gets them.
        check: measures them.
        end: of the whole command, by ``time.monotonic``.
    """
    chosen = [name for name in STAGES if name in names]
    for place, name in enumerate(chosen):
        function, weight = STAGES[name]
        weights = sum(STAGES[later][1] for later in chosen[place:])
        now = time.monotonic()
        share = max(0.0, end - RESERVE - now) * weight / weights
        stage = recorder.begin(name, now + share)
        # A training sets them itself.
        with nullcontext() if name == 'training' else backends(fast=name != 'parity'):
            recorder.finish(stage, *_outcome(function, check, stage))
        free_memory()  # of what the stage's own frame held


def _outcome(
    function: Callable[[Check, Stage], None], check: Check, stage: Stage
) -> tuple[str, str | None]:
    """Status and reason of a stage that is run."""
    try:
        function(check, stage)
    except ModuleNotFoundError as error:
        return LEFT_OUT, NEEDED.format(error)
    except torch.cuda.OutOfMemoryError as error:
        return LEFT_OUT, f'It needs more memory than there is: {error}'
    except Exception as error:  # whatever it is, what else can be measured is
        traceback.print_exc()
        return FAILED, f'{type(error).__name__}: {error}'
    if stage.broken:
        return FAILED, None
    if not any(table.rows for table in stage.tables):
        return CUT, 'Nothing was measured in its share of the time.'
    return RAN, None


def end_at(end: float, minutes: float, recorder: Recorder, scratch: Path) -> threading.Timer:
    """Starts a thread that ends the process with status 3 at a time, whatever it is doing.

    It writes what there is and removes ``scratch``; ``cancel`` it when all is done.
    """

    def leave() -> None:
        with recorder.lock:  # kept, so that no stage writes to files that are gone
            try:
                for stage in recorder.stages:
                    if stage.status is None:
                        why = f'The {minutes:g} minutes of the whole command were over (--minutes).'
                        recorder.finish(stage, CUT, why)
                shutil.rmtree(scratch, ignore_errors=True)
            finally:
                # The main thread may be waiting for the device and would not see an exception.
                os._exit(CUT_STATUS)

    timer = threading.Timer(max(0.0, end - time.monotonic()), leave)
    timer.daemon = True
    timer.start()
    return timer


def unpack(wheels: Path, site: Path) -> None:
    """Unpacks pure wheels into a folder that this process and its children import from."""
    for wheel in sorted(wheels.glob('*.whl')):
        shutil.unpack_archive(wheel, site, 'zip')
    sys.path.insert(0, str(site))
    paths = [str(site), *filter(None, [os.environ.get('PYTHONPATH')])]
    os.environ['PYTHONPATH'] = os.pathsep.join(paths)
    importlib.invalidate_caches()
