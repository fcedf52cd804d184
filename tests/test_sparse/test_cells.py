"""Cells of any size that the network's stride divides, and small images."""

import pytest
import torch
from helpers.networks import build, errors_on
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, sparsify

ENGINES = ('tiles', 'masked_dense')


def visible(batch: int, height: int, width: int) -> Tensor:
    """(B, gh, gw) bool, about .4 of it True, in every image another number."""
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, height, width, generator=generator) < 0.4


def cifar_resnet(**settings: object) -> nn.Module:
    """A ResNet-18 with a 3 x 3 stem of stride 1 and no pooling: total stride 8."""
    torch.manual_seed(0)
    config = dict(depth=18, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
    network = MODELS.build(dict(type='ResNet_CIFAR', **config, **settings)).double()
    network.train()
    return network


@pytest.mark.parametrize('cell', [64, 96])
@pytest.mark.parametrize(
    'name', ['mmpretrain/resnet18', 'mmpretrain/mobilenetv2', 'timm/convnextv2_atto']
)
def test_cells_larger_than_the_stride(name: str, cell: int) -> None:
    for engine, errors in errors_on(lambda: build(name), visible(3, 2, 2), cell, ENGINES).items():
        assert max(errors.values()) < 1e-9, (engine, errors)


@pytest.mark.parametrize(('cell', 'grid'), [(8, 8), (16, 4), (24, 2), (32, 2)])
def test_small_images_with_a_cifar_stem(cell: int, grid: int) -> None:
    """64 px (48 for cells of 24): the grid may be as fine as for a large image."""
    for engine, errors in errors_on(cifar_resnet, visible(3, grid, grid), cell, ENGINES).items():
        assert max(errors.values()) < 1e-9, (engine, errors)


def test_dilated_stages_allow_smaller_cells() -> None:
    """Dilation in place of stride: total stride 8, so cells of 8."""

    def dilated() -> nn.Module:
        torch.manual_seed(0)
        network = MODELS.build(
            dict(
                type='ResNet',
                depth=18,
                stem_channels=8,
                base_channels=8,
                strides=(1, 2, 1, 1),
                dilations=(1, 1, 2, 4),
                out_indices=(0, 1, 2, 3),
            )
        ).double()
        network.train()
        return network

    for engine, errors in errors_on(dilated, visible(2, 6, 8), 8, ENGINES).items():
        assert max(errors.values()) < 1e-9, (engine, errors)


@pytest.mark.parametrize('engine', ENGINES)
def test_a_cell_that_the_stride_does_not_divide_names_layer_and_op(engine: str) -> None:
    network = build('mmpretrain/resnet18')
    images = torch.randn(1, 3, 96, 96, dtype=torch.double)
    for cell, words in ((16, r"conv2d in layer 'layer4.0.conv1'"), (48, r"'layer4.0.conv1'")):
        mask = CellMask.full(batch=1, grid=(96 // cell, 96 // cell))
        with pytest.raises(ValueError, match=words) as raised:
            network(sparsify(images, mask, engine))
        assert 'does not divide' in str(raised.value) and 'mask.cell' in str(raised.value)
