"""Unmodified networks of three libraries on both engines, and cells of any size."""

import copy

import pytest
import torch
from helpers.networks import NETWORKS, SMALL, build, errors_of, errors_on
from helpers.sparse_reference import masked_copy, relative_error, run
from mmpretrain.models.selfsup.spark import SparseHelper
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, sparsify

pytestmark = pytest.mark.slow

ENGINES = ('tiles', 'masked_dense')


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.double, requires_grad=True)


def twins(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same images as two leaves, so that each keeps its own gradient."""
    x = images(batch, height, width)
    return x, x.detach().clone().requires_grad_()


@pytest.mark.parametrize('name', NETWORKS)
def test_equals_the_reference(name: str) -> None:
    for engine, errors in errors_of(name).items():
        for kind, error in errors.items():
            assert error < 1e-9, (engine, kind, error)


@pytest.mark.parametrize(
    'name', ['mmpretrain/resnet50', 'timm/convnextv2_atto', 'timm/mobilenetv2_050']
)
def test_the_way_of_a_gpu_equals_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hgkd_mm.sparse.tiles.full_map_pays', lambda device: True)
    for kind, error in errors_of(name, ('tiles',))['tiles'].items():
        assert error < 1e-9, (kind, error)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    'name', ['mmpretrain/resnet50', 'mmpretrain/seresnet50', 'timm/convnextv2_atto']
)
def test_all_visible_is_the_dense_network(name: str, engine: str) -> None:
    network = build(name)
    x, y = twins(2, 96, 64)
    want = run(copy.deepcopy(network), y, y)
    got = run(network, x, sparsify(x, CellMask.full(batch=2, grid=(3, 2)), engine))
    for kind, error in relative_error(got, want).items():
        assert error < 1e-9, (kind, error)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('depth', [18, 50])
def test_equals_mmpretrain_sparse_resnet(depth: int, engine: str) -> None:
    config = dict(depth=depth, **SMALL)
    network = build(f'mmpretrain/resnet{depth}')
    theirs = MODELS.build(
        dict(
            type='SparseResNet',
            norm_cfg=dict(type='mmpretrain.SparseBatchNorm2d'),
            **copy.deepcopy(config),
        )
    ).double()
    theirs.load_state_dict(network.state_dict())
    theirs.train()
    mask = CellMask.random(
        batch=3, grid=(3, 3), mask_ratio=0.6, generator=torch.Generator().manual_seed(5)
    )
    x, y = twins(3, 96, 96)
    SparseHelper._cur_active = mask.visible[:, None]
    wide = mask.at((96, 96))[:, None]
    want = run(theirs, y, y * wide)
    got = run(network, x, sparsify(x, mask, engine))
    for kind, error in relative_error(got, want).items():
        assert error < 1e-9, (kind, error)


@pytest.mark.parametrize('engine', ENGINES)
def test_pixels_under_the_mask_do_not_count(engine: str) -> None:
    network = build('mmpretrain/resnet50')
    mask = CellMask.random(
        batch=2, grid=(2, 3), mask_ratio=0.5, generator=torch.Generator().manual_seed(1)
    )
    x = images(2, 64, 96)
    y = torch.where(mask.at((64, 96))[:, None], x.detach(), torch.nan).requires_grad_()
    want = run(copy.deepcopy(network), x, sparsify(x, mask, engine))
    got = run(copy.deepcopy(network), y, sparsify(y, mask, engine))
    for kind, tensors in want.items():
        for a, b in zip(got[kind], tensors, strict=True):
            assert torch.equal(a, b), kind


@pytest.mark.parametrize('engine', ENGINES)
def test_evaluation_uses_running_statistics(engine: str) -> None:
    network = build('mmpretrain/resnet18')
    network.eval()  # mmpretrain's ResNet.eval() returns None
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    visible = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.bool)
    x = images(1, 64, 64)
    want = masked_copy(network, visible)(
        x * visible.repeat_interleave(32, 1).repeat_interleave(32, 2)
    )
    for a, b in zip(network(sparsify(x, CellMask(visible), engine)), want, strict=True):
        torch.testing.assert_close(a.to_dense(), b, rtol=1e-10, atol=1e-10)


def test_an_image_may_be_hidden_as_a_whole() -> None:
    network = build('mmpretrain/resnet18')
    visible = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 0]]], dtype=torch.bool)
    x = images(2, 64, 64)
    with_it = network(sparsify(x, CellMask(visible)))[-1]
    alone = build('mmpretrain/resnet18')(sparsify(x[:1], CellMask(visible[:1])))[-1]
    torch.testing.assert_close(with_it.rows, alone.rows, rtol=1e-10, atol=1e-10)
    assert torch.equal(with_it.mean_visible()[1], torch.zeros_like(with_it.mean_visible()[1]))


def test_two_masks_and_two_models_interleaved() -> None:
    first, second = build('mmpretrain/resnet18'), build('mmpretrain/resnet50')
    g = torch.Generator().manual_seed(2)
    masks = [CellMask.random(batch=2, grid=(2, 2), mask_ratio=r, generator=g) for r in (0.25, 0.5)]
    x = images(2, 64, 64)
    alone = [first(sparsify(x, masks[0]))[-1], second(sparsify(x, masks[1]))[-1]]
    a, b = sparsify(x, masks[0]), sparsify(x, masks[1])
    a, b = first.conv1(a), second.conv1(b)
    second(sparsify(x, masks[0]))
    interleaved = [first(sparsify(x, masks[0]))[-1], second(sparsify(x, masks[1]))[-1]]
    for one, other in zip(alone, interleaved, strict=True):
        assert torch.equal(one.to_dense(), other.to_dense())


def test_bfloat16_autocast_is_as_close_as_the_dense_ops_are() -> None:
    mask = CellMask.random(
        batch=4, grid=(2, 2), mask_ratio=0.5, generator=torch.Generator().manual_seed(3)
    )
    x = torch.randn(4, 3, 64, 64)
    want = [m.rows for m in build('mmpretrain/resnet50').float()(sparsify(x, mask))]
    errors = {}
    for engine in ENGINES:
        network = build('mmpretrain/resnet50').float()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            got = network(sparsify(x, mask, engine))
        sum(m.rows.float().square().mean() for m in got).backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())
        errors[engine] = [
            ((a.rows.float() - b).norm() / b.norm()).item() for a, b in zip(got, want, strict=True)
        ]
    # bfloat16 keeps 8 bits; rounding grows over 50 layers, in the dense ops as well.
    for ours, reference in zip(errors['tiles'], errors['masked_dense'], strict=True):
        assert 0 < ours < 1.5 * reference


def random_cells(batch: int, height: int, width: int) -> Tensor:
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
    for engine, errors in errors_on(
        lambda: build(name), random_cells(3, 2, 2), cell, ENGINES
    ).items():
        assert max(errors.values()) < 1e-9, (engine, errors)


@pytest.mark.parametrize(('cell', 'grid'), [(8, 8), (16, 4), (24, 2), (32, 2)])
def test_small_images_with_a_cifar_stem(cell: int, grid: int) -> None:
    """64 px (48 for cells of 24): the grid may be as fine as for a large image."""
    for engine, errors in errors_on(
        cifar_resnet, random_cells(3, grid, grid), cell, ENGINES
    ).items():
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

    for engine, errors in errors_on(dilated, random_cells(2, 6, 8), 8, ENGINES).items():
        assert max(errors.values()) < 1e-9, (engine, errors)


@pytest.mark.parametrize('engine', ENGINES)
def test_a_cell_that_the_stride_does_not_divide_names_layer_and_op(engine: str) -> None:
    network = build('mmpretrain/resnet18')
    images = torch.randn(1, 3, 96, 96, dtype=torch.double)
    for cell, words in ((16, r"conv2d in layer 'layer4.0.conv1'"), (48, r"'layer4.0.conv1'")):
        mask = CellMask.full(batch=1, grid=(96 // cell, 96 // cell))
        with pytest.raises(ValueError, match=rf'{words}.*mask\.cell'):
            network(sparsify(images, mask, engine))
