"""All measurements on one device as stages within a time: ``tools/gpu_check.py``."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import timm
import torch

from hgkd_mm.experiments.places import CONFIGS

from .encoder import COMPILE_SECONDS, import_openmmlab, measure_compiled, measure_networks
from .methods import CONVOLUTIONS, measure_methods
from .parity import measure_parity
from .profile import add_waits, measure_kernels
from .report import CUT, FAILED, LEFT_OUT, RAN, LeftOutError, Recorder, Stage
from .timing import Settings, backends, free_memory

# Seconds kept for what a stage does between two looks at the clock, and for the last file.
RESERVE = 10.0
CUT_STATUS = 3
FLAGSHIP = CONFIGS / 'pretrain' / 'hgkd_r50_mae.py'


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large all that is measured is; the default is as in training.

    Attributes:
        settings: of all stages; bfloat16, for which many a CPU has no convolutions.
        parity: timm's networks that are compared with float64.
        parity_batch, small_batch: images of the comparison, and of the first encoder once more.
        encoder: timm's networks that are timed, and what ``NETWORKS`` calls each.
        convolutions: how many of the layers of ``CONVOLUTIONS`` are measured.
        compiled: whether ``torch.compile`` is measured.
        vit: the teacher, as mmpretrain's ``VisionTransformer`` wants it.
        options: changes of the flagship's config.
        training: arguments of ``measure_training``.
    """

    settings: Settings = Settings(batch=256, dtype=torch.bfloat16, rounds=8)
    parity: tuple[str, ...] = ('resnet50', 'convnext_tiny', 'mobilenetv2_100')
    parity_batch: int = 8
    small_batch: int = 64
    encoder: dict[str, str] = field(
        default_factory=lambda: {
            'resnet50': 'resnet50',
            'resnet18': 'resnet18',
            'convnext_tiny': 'convnext_tiny',
            'mobilenetv2_100': 'mobilenet_v2',
        }
    )
    convolutions: int | None = None
    compiled: bool = True
    vit: str | dict = 'base'
    options: dict[str, object] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)


_TEACHER = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 48}

SMALL = Sizes(
    settings=Settings(batch=2, size=64, rounds=1, warmup=1),
    parity=('resnet10t', 'convnext_atto'),
    parity_batch=2,
    small_batch=2,
    encoder={'resnet18': 'resnet18', 'mobilenetv2_050': 'mobilenet_v2'},
    convolutions=1,
    compiled=False,
    vit=_TEACHER,
    options={
        'model.backbone.depth': 18,
        'model.backbone.drop_path_rate': 0.0,
        'model.teachers.mim.arch': {'_delete_': True, **_TEACHER},
        'model.heads.sim.queue_size': 64,
    },
    training={'images': 12, 'seconds': 60.0, 'steps': 4, 'warmup': 1},
)


@dataclass(kw_only=True)
class Check:
    """The stages as methods; ``end`` is that of the whole command, by ``time.monotonic``."""

    device: str
    sizes: Sizes
    scratch: Path
    end: float

    @property
    def settings(self) -> Settings:
        return replace(self.sizes.settings, device=self.device)

    @property
    def encoder_settings(self) -> Settings:
        """Those of the first encoder."""
        return replace(self.settings, network=next(iter(self.sizes.encoder)))

    def parity(self, stage: Stage) -> None:
        settings = replace(self.settings, batch=self.sizes.parity_batch)
        measure_parity(stage, settings, self.sizes.parity)

    def encoder(self, stage: Stage) -> None:
        sizes = self.sizes
        kept = COMPILE_SECONDS * sizes.compiled
        with backends(fast=True):
            table = measure_networks(stage, self.settings, sizes.encoder, sizes.small_batch, kept)
            if sizes.compiled and self.end - time.monotonic() > COMPILE_SECONDS:
                measure_compiled(stage, self.encoder_settings, table)
                return
        why = 'too little time' if sizes.compiled else 'it is left out with --small'
        stage.notes.append(f'torch.compile was not measured: {why}.')

    def methods(self, stage: Stage) -> None:
        settings = replace(self.settings, rounds=2)
        with backends(fast=True):
            measure_methods(stage, settings, CONVOLUTIONS[: self.sizes.convolutions])

    def profile(self, stage: Stage) -> None:
        settings = replace(self.encoder_settings, rounds=3)
        network = timm.create_model(settings.network, features_only=True)
        with backends(fast=True):
            steps = measure_kernels(stage, settings, network, ('tiles', 'dense')).train
            if not settings.cuda:
                stage.notes.append('A CPU is not waited for: synchronizations were not counted.')
                return
            waits = stage.table('Where the host waits for the device')
            count = add_waits(waits, 'encoder, tiles', steps['tiles'])
            if count:
                stage.broken.append(f'The encoder step waits for the device {count} times.')
            del steps, network
            free_memory()
            if stage.out_of_time('waits of the whole step'):
                return
            try:
                config = self.flagship()
            except LeftOutError as error:
                stage.notes.append(f'Waits of the whole step were not counted: {error}')
                return
            from .step import add_step_waits

            add_step_waits(waits, self.settings, config, self.sizes.vit)

    def step(self, stage: Stage) -> None:
        config = self.flagship()
        from .step import measure_step

        with backends(fast=True):
            measure_step(stage, self.settings, config, self.sizes.vit)

    def training(self, stage: Stage) -> None:
        config = self.flagship()
        from .training import measure_training

        options = self.sizes.training
        measure_training(stage, self.settings, config, self.sizes.vit, self.scratch, **options)

    def flagship(self) -> Path:
        """The flagship's config in the sizes of this check, as a file of its own.

        Raises:
            LeftOutError: a package of OpenMMLab is missing.
        """
        import_openmmlab()
        from mmengine.config import Config

        from hgkd_mm.utils.launch import override

        config = Config.fromfile(FLAGSHIP)
        override(config, self.sizes.options)
        path = self.scratch / FLAGSHIP.name
        config.dump(path)
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


def run_stages(names: Sequence[str], recorder: Recorder, check: Check) -> None:
    """Runs stages in the order of ``STAGES``; an error ends its stage only."""
    chosen = [name for name in STAGES if name in names]
    for place, name in enumerate(chosen):
        function, weight = STAGES[name]
        weights = sum(STAGES[later][1] for later in chosen[place:])
        now = time.monotonic()
        share = max(0.0, check.end - RESERVE - now) * weight / weights
        stage = recorder.begin(name, now + share)
        recorder.finish(stage, *_outcome(function, check, stage))
        free_memory()  # of what the stage's own frame held


def _outcome(
    function: Callable[[Check, Stage], None], check: Check, stage: Stage
) -> tuple[str, str | None]:
    """Status and reason of a stage that is run."""
    try:
        function(check, stage)
    except LeftOutError as error:
        return LEFT_OUT, str(error)
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


def unpack(wheels: Path, site: Path) -> None:
    """Unpacks pure wheels into a folder that this process and its children import from."""
    for wheel in sorted(wheels.glob('*.whl')):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    sys.path.insert(0, str(site))
    paths = [str(site), *filter(None, [os.environ.get('PYTHONPATH')])]
    os.environ['PYTHONPATH'] = os.pathsep.join(paths)
    importlib.invalidate_caches()
