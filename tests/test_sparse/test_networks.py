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


def random_mask(seed: int, **settings: object) -> CellMask:
    return CellMask.random(**settings, generator=torch.Generator().manual_seed(seed))


def twin(x: Tensor) -> Tensor:
    """The same images as another leaf, which has its own gradient."""
    return x.detach().clone().requires_grad_()


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
@pytest.mark.parametrize('name', ['mmpretrain/seresnet50', 'timm/convnextv2_atto'])
def test_all_visible_is_the_dense_network(name: str, engine: str) -> None:
    network = build(name)
    x = images(2, 96, 64)
    y = twin(x)
    want = run(copy.deepcopy(network), y, y)
    got = run(network, x, sparsify(x, CellMask.full(batch=2, grid=(3, 2)), engine))
    for kind, error in relative_error(got, want).items():
        assert error < 1e-9, (kind, error)


@pytest.mark.parametrize('engine', ENGINES)
def test_equals_mmpretrain_sparse_resnet(engine: str) -> None:
    network = build('mmpretrain/resnet50')
    norm = dict(type='mmpretrain.SparseBatchNorm2d')
    theirs = MODELS.build(dict(type='SparseResNet', depth=50, norm_cfg=norm, **SMALL)).double()
    theirs.load_state_dict(network.state_dict())
    theirs.train()
    mask = random_mask(5, batch=3, grid=(3, 3), mask_ratio=0.6)
    x = images(3, 96, 96)
    y = twin(x)
    SparseHelper._cur_active = mask.visible[:, None]
    wide = mask.at((96, 96))[:, None]
    want = run(theirs, y, y * wide)
    got = run(network, x, sparsify(x, mask, engine))
    for kind, error in relative_error(got, want).items():
        assert error < 1e-9, (kind, error)


@pytest.mark.parametrize('engine', ENGINES)
def test_pixels_under_the_mask_do_not_count(engine: str) -> None:
    network = build('mmpretrain/resnet50')
    mask = random_mask(1, batch=2, grid=(2, 3), mask_ratio=0.5)
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


def test_bfloat16_autocast_is_as_close_as_the_dense_ops_are() -> None:
    mask = random_mask(3, batch=4, grid=(2, 2), mask_ratio=0.5)
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


def resnet18(kind: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    network = MODELS.build(dict(type=kind, depth=18, **SMALL, **settings)).double()
    network.train()
    return network


def cifar() -> nn.Module:
    """A 3 x 3 stem of stride 1 and no pooling: total stride 8."""
    return resnet18('ResNet_CIFAR')


def dilated() -> nn.Module:
    """Dilation in place of stride: total stride 8."""
    return resnet18('ResNet', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


@pytest.mark.parametrize(
    ('make', 'cell', 'shape'),
    [
        *((cifar, cell, (3, grid, grid)) for cell, grid in ((8, 8), (16, 4), (24, 2), (32, 2))),
        (dilated, 8, (2, 6, 8)),
        (lambda: build('mmpretrain/mobilenetv2'), 64, (3, 2, 2)),
        (lambda: build('timm/convnextv2_atto'), 64, (3, 2, 2)),
        (lambda: build('mmpretrain/resnet18'), 96, (3, 2, 2)),
    ],
)
def test_cells_of_other_sizes(make, cell: int, shape: tuple[int, int, int]) -> None:
    """About .4 of them visible, in every image another number."""
    visible = torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.4
    for engine, errors in errors_on(make, visible, cell, ENGINES).items():
        assert max(errors.values()) < 1e-9, (engine, errors)


@pytest.mark.parametrize('engine', ENGINES)
def test_a_cell_that_the_stride_does_not_divide_names_layer_and_op(engine: str) -> None:
    network = build('mmpretrain/resnet18')
    images = torch.randn(1, 3, 96, 96, dtype=torch.double)
    for cell, words in ((16, r"conv2d in layer 'layer4.0.conv1'"), (48, r"'layer4.0.conv1'")):
        mask = CellMask.full(batch=1, grid=(96 // cell, 96 // cell))
        with pytest.raises(ValueError, match=rf'{words}.*mask\.cell'):
            network(sparsify(images, mask, engine))
