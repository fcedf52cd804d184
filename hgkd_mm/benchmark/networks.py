"""Networks to measure, each with what mmpretrain has for masked images of the same kind."""

from __future__ import annotations

from collections.abc import Callable

from mmengine.utils import import_modules_from_strings
from mmpretrain.models.selfsup.spark import SparseHelper
from mmpretrain.registry import MODELS
from torch import nn

from hgkd_mm.sparse import CellMask

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
    import_modules_from_strings(['mmpretrain.models'])
    return MODELS.build(NETWORKS[name][0])


def build_mmpretrain_sparse(name: str) -> nn.Module | None:
    """What mmpretrain's SparK trains: dense ops, a mask after each. None if it has none."""
    import_modules_from_strings(['mmpretrain.models'])
    config = NETWORKS[name][1]
    return None if config is None else MODELS.build(config)


def with_sparse_helper(run: Callable[[], object], draw: Callable[[], CellMask]) -> Callable:
    """``run`` with a new mask handed to mmpretrain's layers, which read it from a class."""

    def call() -> object:
        SparseHelper._cur_active = draw().visible[:, None]
        return run()

    return call
