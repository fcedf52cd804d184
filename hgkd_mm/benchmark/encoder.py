"""One training step of an encoder: dense, under each engine, and as mmpretrain's SparK takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import product

import timm
import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, SparseFeatureMap, sparsify

from .report import LeftOutError, Report, Stage, mebibytes
from .timing import Settings, free_memory, measure, saved_bytes

MMPRETRAIN, COMPILED = 'mmpretrain sparse', 'dense, torch.compile'
# Compiling ResNet-50 and its gradient takes about so long.
COMPILE_SECONDS = 30.0
MASK_RATIOS = (0.6, 0.75)
# timm's last four maps, as a decoder reads them.
TIMM_STAGES = (-4, -3, -2, -1)

_STAGES = dict(out_indices=(0, 1, 2, 3))
_SPARSE_BN = dict(type='mmpretrain.SparseBatchNorm2d')
# mmpretrain's networks, each with what it has for masked images of the same kind.
NETWORKS: dict[str, tuple[dict, dict | None]] = {
    **{
        f'resnet{depth}': (
            dict(type='ResNet', depth=depth, **_STAGES),
            dict(type='SparseResNet', depth=depth, norm_cfg=_SPARSE_BN, **_STAGES),
        )
        for depth in (18, 50, 101)
    },
    'convnext_tiny': (
        dict(type='ConvNeXt', arch='tiny', gap_before_final_norm=False, **_STAGES),
        dict(type='SparseConvNeXt', arch='tiny', gap_before_output=False, **_STAGES),
    ),
    'mobilenet_v2': (dict(type='MobileNetV2', out_indices=(1, 2, 4, 7)), None),
    'resnext50': (dict(type='ResNeXt', depth=50, groups=32, width_per_group=4, **_STAGES), None),
    'regnet_3.2gf': (dict(type='RegNet', arch='regnetx_3.2gf', **_STAGES), None),
}


def import_openmmlab() -> None:
    """Imports mmpretrain's networks and those of this package that stand on them.

    Raises:
        LeftOutError: a package is missing; the text names it.
    """
    try:
        import mmpretrain.models  # noqa: F401

        import hgkd_mm.models  # noqa: F401
    except ImportError as error:
        raise LeftOutError(
            f'mmengine, mmcv and mmpretrain are needed ({error}): install them, or give '
            '--wheels DIR, which tools/gpu_wheels.sh fills.'
        ) from error


def build_mmpretrain(config: dict) -> nn.Module:
    """A network of mmpretrain's registry."""
    import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS

    return MODELS.build(config)


def build_network(name: str) -> nn.Module:
    """The network of ``NETWORKS``, dense as mmpretrain has it."""
    return build_mmpretrain(NETWORKS[name][0])


def autocast(dtype: torch.dtype, device: str) -> AbstractContextManager:
    """Autocast to a half type; nothing for float32, which older torch refuses even when off."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.split(':')[0], dtype=dtype)


def backward_of_sum(maps: list[Tensor]) -> None:
    """The backward pass from the sum of all maps, by a gradient that lies in memory.

    The sum's own is an expanded scalar, which kernels of dense maps read a value at a time.
    """
    torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])


@dataclass
class EncoderSteps:
    """Training steps and forward passes by name, and the tensors that are there anyway."""

    train: dict[str, Callable[[], None]]
    forward: dict[str, Callable[[], object]]
    known: list[Tensor]


def encoder_steps(network: nn.Module, settings: Settings, engines: Sequence[str]) -> EncoderSteps:
    """Forward and backward of an encoder alone, a new mask at every step.

    The gradient is that of the sum of all output maps. Drawing the mask and building its
    index tables is part of the step. Weights and images are channels-last for all.

    Args:
        network: returns a tuple of maps.
        settings: of images, masks, type and device.
        engines: engines of ``sparsify``, and 'dense' for full images.
    """
    network = network.to(settings.device, memory_format=torch.channels_last)
    network.train()  # mmpretrain's returns None
    images = settings.images()

    def forward(engine: str) -> list[Tensor]:
        inputs: Tensor | SparseFeatureMap = images
        if engine != 'dense':
            inputs = sparsify(images, settings.draw_mask(), engine)
        with autocast(settings.dtype, settings.device):
            maps = network(inputs)
        return [m if isinstance(m, Tensor) else m.data for m in maps]

    def step(engine: str) -> None:
        network.zero_grad(set_to_none=True)
        backward_of_sum(forward(engine))

    return EncoderSteps(
        train={engine: (lambda e=engine: step(e)) for engine in engines},
        forward={engine: (lambda e=engine: forward(e)) for engine in engines},
        known=[*network.parameters(), images],
    )


def add_mmpretrain(steps: EncoderSteps, settings: Settings, name: str) -> None:
    """Adds what mmpretrain's SparK trains, if it has it: dense ops and a mask after each."""
    config = NETWORKS[name][1]
    if config is None:
        return
    theirs = encoder_steps(build_mmpretrain(config), settings, ('dense',))
    steps.train[MMPRETRAIN] = _with_mask(theirs.train['dense'], settings.draw_mask)
    steps.forward[MMPRETRAIN] = _with_mask(theirs.forward['dense'], settings.draw_mask)
    steps.known += theirs.known


def _with_mask(run: Callable[[], object], draw: Callable[[], CellMask]) -> Callable[[], object]:
    """``run`` with a new mask handed to mmpretrain's layers, which read it from a class."""
    from mmpretrain.models.selfsup.spark import SparseHelper

    def call() -> object:
        SparseHelper._cur_active = draw().visible[:, None]
        return run()

    return call


def measure_encoder(stage: Stage, settings: Settings, engines: Sequence[str]) -> None:
    """Training step and memory of one encoder: dense, by engine, and mmpretrain's own."""
    steps = encoder_steps(build_network(settings.network), settings, ('dense', *engines))
    add_mmpretrain(steps, settings, settings.network)
    table = stage.table(f'{settings.title}, mask ratio {settings.mask_ratio}')
    _measure_case(table, settings, steps)


def measure_ratios(stage: Stage, settings: Settings, ratios: Sequence[float]) -> None:
    """Training step of one encoder on tiles, by mask ratio."""
    network, cells = build_network(settings.network), (settings.size // settings.cell) ** 2
    steps = encoder_steps(network, settings, ('dense',))
    visible = {'dense': 1.0}
    for ratio in ratios:
        sparse = encoder_steps(network, replace(settings, mask_ratio=ratio), ('tiles',))
        name = f'tiles, mask ratio {ratio}'
        steps.train[name], steps.forward[name] = sparse.train['tiles'], sparse.forward['tiles']
        steps.known += sparse.known
        visible[name] = round(cells * (1 - ratio)) / cells
    _measure_case(stage.table(settings.title), settings, steps, visible=visible)


def measure_networks(
    stage: Stage,
    settings: Settings,
    networks: dict[str, str],
    small_batch: int,
    kept: float = 0.0,
) -> Report:
    """Dense, what there was for masked images before, and tiles; a new mask each step.

    Args:
        stage: gets the table, and what could not be measured.
        settings: ``network`` and ``mask_ratio`` do not count.
        networks: timm's names, and what ``NETWORKS`` calls each.
        small_batch: of the first network once more.
        kept: seconds of the share that are for something later.
    """
    table = stage.table(f'Forward and backward of the encoder, {settings.size} px')
    reference = MMPRETRAIN
    try:
        import_openmmlab()
    except LeftOutError as error:
        stage.notes.append(f'masked_dense stands in for mmpretrain sparse: {error}')
        reference = 'masked_dense'
    for case, ratio in product(_cases(settings, list(networks), small_batch), MASK_RATIOS):
        case = replace(case, mask_ratio=ratio)
        name = f'{case.network}, batch {case.batch}, {_rounding(case)}, mask ratio {ratio}'
        if stage.out_of_time(name, kept):
            continue
        # What masks a dense map takes nearly as long whatever is hidden.
        beside = reference if ratio == MASK_RATIOS[0] else None
        try:
            steps = _timm_steps(case, networks[case.network], beside)
            _measure_case(table, case, steps, case=_case(case))
        except torch.cuda.OutOfMemoryError as error:
            stage.notes.append(f'Not measured for want of memory: {name} ({error}).')
        except Exception as error:  # one leaves the others
            stage.broken.append(f'{name}: {type(error).__name__}: {str(error)[:300]}')
        steps = None
        free_memory()
    return table


def measure_compiled(stage: Stage, settings: Settings, table: Report) -> None:
    """The dense step of one of timm's networks with and without torch.compile."""
    network = timm.create_model(settings.network, features_only=True, out_indices=TIMM_STAGES)
    both = {'dense': network, COMPILED: torch.compile(network)}
    steps = {k: encoder_steps(n, settings, ('dense',)).train['dense'] for k, n in both.items()}
    try:
        steps[COMPILED]()
    except Exception as error:  # it needs a C compiler, among others
        stage.notes.append(f'torch.compile failed: {type(error).__name__}: {str(error)[:300]}')
        return
    _, compiled = measure(steps, settings, 'dense')
    cells = {'saved MiB': '', 'saved': ''}
    table.add_step(compiled, steps[COMPILED], settings, 'dense', case=_case(settings), cells=cells)


def _cases(settings: Settings, networks: list[str], small_batch: int) -> list[Settings]:
    """Every network in both types; the last one, and the small batch, in the half type alone."""
    first, *others = (replace(settings, network=name) for name in networks)
    full = dict(dtype=torch.float32)
    cases = [first, replace(first, **full), replace(first, batch=small_batch), *others]
    return list(dict.fromkeys([*cases, *(replace(case, **full) for case in others[:-1])]))


def _timm_steps(settings: Settings, name: str, reference: str | None) -> EncoderSteps:
    """Steps of timm's network, ``name`` in ``NETWORKS``: dense, the reference if any, tiles."""
    theirs = reference == MMPRETRAIN and NETWORKS[name][1] is not None
    beside = () if theirs or reference is None else ('masked_dense',)
    network = timm.create_model(settings.network, features_only=True, out_indices=TIMM_STAGES)
    steps = encoder_steps(network, settings, ('dense', *beside, 'tiles'))
    if theirs:
        add_mmpretrain(steps, settings, name)
    return steps


def _measure_case(
    table: Report,
    settings: Settings,
    steps: EncoderSteps,
    *,
    case: dict[str, object] | None = None,
    visible: dict[str, float] | None = None,
) -> None:
    """A row for each step: time and memory, beside those of the dense one."""
    saved = {name: saved_bytes(run, steps.known) for name, run in steps.forward.items()}
    for result in measure(steps.train, settings, 'dense'):
        name, kept = result.name, saved[result.name]
        record = {'saved_bytes': kept}
        cells = {'saved MiB': mebibytes(kept), 'saved': f'{kept / saved["dense"]:.2f}'}
        if visible is not None:
            record['visible'], cells['visible'] = visible[name], f'{visible[name]:.3f}'
        more = dict(case=case, cells=cells, record=record)
        table.add_step(result, steps.train[name], settings, 'dense', **more)


def _case(settings: Settings) -> dict[str, object]:
    return {
        'network': settings.network,
        'batch': settings.batch,
        'mask_ratio': settings.mask_ratio,
        'type': _rounding(settings),
    }


def _rounding(settings: Settings) -> str:
    """What the products are computed in: float32 is TF32 on a GPU here."""
    full_on_gpu = settings.dtype == torch.float32 and settings.cuda
    return 'TF32' if full_on_gpu else settings.type_name
