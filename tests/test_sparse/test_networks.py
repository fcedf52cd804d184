"""Unmodified networks of mmpretrain on both engines, against the slow reference."""

import copy

import mmpretrain.models  # noqa: F401  registers the networks
import pytest
import torch
import torchvision
from helpers.sparse_reference import masked_copy, relative_error, run
from mmpretrain.models.backbones.resnest import SplitAttentionConv2d
from mmpretrain.models.selfsup.spark import SparseHelper
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, sparsify

ENGINES = ('tiles', 'masked_dense')
SMALL = dict(stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
WIDE = dict(stem_channels=8, base_channels=16, out_indices=(0, 1, 2, 3))
NETWORKS = {
    'resnet18': dict(type='ResNet', depth=18, **SMALL),
    'resnet34': dict(type='ResNet', depth=34, **SMALL),
    'resnet50': dict(type='ResNet', depth=50, **SMALL),
    'resnet50-caffe': dict(type='ResNet', depth=50, style='caffe', **SMALL),
    'resnet101': dict(type='ResNet', depth=101, **SMALL),
    'resnet18-droppath': dict(type='ResNet', depth=18, drop_path_rate=0.3, **SMALL),
    'resnet18-dilated': dict(
        type='ResNet', depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), **SMALL
    ),
    'resnetv1c50': dict(type='ResNetV1c', depth=50, **SMALL),
    'resnetv1d50': dict(type='ResNetV1d', depth=50, **SMALL),
    'resnext50': dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, **SMALL),
    'seresnet50': dict(type='SEResNet', depth=50, **WIDE),
    'res2net50': dict(
        type='Res2Net',
        depth=50,
        scales=4,
        base_width=8,
        deep_stem=False,
        avg_down=False,
        **WIDE,
    ),
    'resnest50': dict(type='ResNeSt', depth=50, **WIDE),
    'regnetx400': dict(type='RegNet', arch='regnetx_400mf', out_indices=(0, 1, 2, 3)),
    'resnet18-cifar': dict(type='ResNet_CIFAR', depth=18, **SMALL),
    'mobilenetv2': dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 7)),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = MODELS.build(copy.deepcopy(NETWORKS[name])).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    network.train()
    for module in network.modules():
        if isinstance(module, SplitAttentionConv2d):
            # Over three pooled vectors its variance is tiny and magnifies rounding.
            module.norm1.eval()
    return network


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.double, requires_grad=True)


def twins(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same images as two leaves, so that each keeps its own gradient."""
    x = images(batch, height, width)
    return x, x.detach().clone().requires_grad_()


def assert_equals_the_reference(network: nn.Module, visible: Tensor, engine: str) -> None:
    """Outputs, gradients and buffers, on images in cells of 32 px."""
    batch, rows, columns = visible.shape
    x, y = twins(batch, 32 * rows, 32 * columns)
    wide = visible.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    want = run(masked_copy(network, visible), y, torch.where(wide, y, 0))
    got = run(network, x, sparsify(x, CellMask(visible), engine))
    for kind, error in relative_error(got, want).items():
        assert error < 1e-9, (kind, error)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', NETWORKS)
def test_equals_the_reference(name: str, engine: str) -> None:
    network = build(name)
    visible = torch.tensor(
        [[[1, 0, 0], [1, 1, 0]], [[0, 0, 1], [0, 1, 0]], [[1, 1, 1], [0, 0, 1]]], dtype=torch.bool
    )
    assert_equals_the_reference(network, visible, engine)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', ['resnet50', 'resnetv1d50', 'seresnet50', 'mobilenetv2'])
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
    network = build(f'resnet{depth}')
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
    network = build('resnet50')
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
    network = build('resnet18')
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
    network = build('resnet18')
    visible = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 0]]], dtype=torch.bool)
    x = images(2, 64, 64)
    with_it = network(sparsify(x, CellMask(visible)))[-1]
    alone = build('resnet18')(sparsify(x[:1], CellMask(visible[:1])))[-1]
    torch.testing.assert_close(with_it.rows, alone.rows, rtol=1e-10, atol=1e-10)
    assert torch.equal(with_it.mean_visible()[1], torch.zeros_like(with_it.mean_visible()[1]))


def test_two_masks_and_two_models_interleaved() -> None:
    first, second = build('resnet18'), build('resnet50')
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
    want = [m.rows for m in build('resnet50').float()(sparsify(x, mask))]
    errors = {}
    for engine in ENGINES:
        network = build('resnet50').float()
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


@pytest.mark.parametrize('engine', ENGINES)
def test_a_network_of_torchvision(engine: str) -> None:
    torch.manual_seed(0)
    network = Stages(torchvision.models.resnet18().double())
    visible = torch.tensor([[[1, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 1, 0]]], dtype=torch.bool)
    assert_equals_the_reference(network, visible, engine)


class Stages(nn.Module):
    """The four stages of a torchvision ResNet, without its classifier."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])

    def forward(self, x: Tensor) -> list[Tensor]:
        x, outs = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            outs.append(x)
        return outs
