"""Networks to measure, each with what mmpretrain has for masked images of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from hgkd_mm.sparse import CellMask

from .encoder import EncoderSteps, encoder_steps
from .table import Settings

_STAGES = dict(out_indices=(0, 1, 2, 3))
_SPARSE_BN = dict(type='mmpretrain.SparseBatchNorm2d')

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


def build_network(name: str) -> nn.Module:
    """The network, dense as mmpretrain has it."""
    return _build(NETWORKS[name][0])


def build_mmpretrain_sparse(name: str) -> nn.Module | None:
    """What mmpretrain's SparK trains: dense ops, a mask after each. None if it has none."""
    config = NETWORKS[name][1]
    return None if config is None else _build(config)


def mmpretrain_steps(settings: Settings) -> EncoderSteps | None:
    """Steps of ``build_mmpretrain_sparse``, called 'dense', with a new mask each. None as there."""
    network = build_mmpretrain_sparse(settings.network)
    if network is None:
        return None
    draw = partial(
        CellMask.random,
        batch=settings.batch,
        grid=(settings.size // settings.cell,) * 2,
        mask_ratio=settings.mask_ratio,
        device=settings.device,
    )
    found = encoder_steps(network, engines=('dense',), **settings.encoder())
    found.train['dense'] = with_sparse_helper(found.train['dense'], draw)
    found.forward['dense'] = with_sparse_helper(found.forward['dense'], draw)
    return found


def with_sparse_helper(run: Callable[[], object], draw: Callable[[], CellMask]) -> Callable:
    """``run`` with a new mask handed to mmpretrain's layers, which read it from a class."""
    from mmpretrain.models.selfsup.spark import SparseHelper

    def call() -> object:
        SparseHelper._cur_active = draw().visible[:, None]
        return run()

    return call


def _build(config: dict) -> nn.Module:
    # Imported here, so that what is measured of networks from elsewhere needs no mmpretrain.
    from mmengine.utils import import_modules_from_strings
    from mmpretrain.registry import MODELS

    import_modules_from_strings(['mmpretrain.models'])
    return MODELS.build(config)
