"""Activation checkpointing and SyncBN on masked images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import sync_bn_worker
from helpers.networks import SMALL, TINY_CONVNEXT
from helpers.ranks import run_two_ranks
from helpers.sparse_reference import relative_error, run
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, UnsupportedOpError, prepare, sparsify

NETWORKS = {
    'resnet50': dict(type='ResNet', depth=50, **SMALL),
    'mobilenetv2': dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 7)),
    'convnext': dict(
        type='ConvNeXt',
        arch=TINY_CONVNEXT,
        gap_before_final_norm=False,
        out_indices=(0, 1, 2, 3),
    ),
}


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    network = MODELS.build({**NETWORKS[name], **options}).double()
    network.train()
    return network


def masked() -> tuple[Tensor, CellMask]:
    g = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 64, 96, dtype=torch.double, generator=g, requires_grad=True)
    return images, CellMask.random(batch=2, grid=(2, 3), mask_ratio=0.5, generator=g)


@pytest.mark.parametrize('name', NETWORKS)
def test_recomputation_changes_nothing_but_the_memory(name: str) -> None:
    kept: dict[bool, int] = {}
    results = {}
    for recompute in (False, True):
        seen: set[int] = set()

        def note(tensor: Tensor, seen: set = seen) -> Tensor:
            seen.add(tensor.untyped_storage().data_ptr())
            return tensor.detach()

        x, mask = masked()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            maps = prepare(build(name, with_cp=recompute))(sparsify(x, mask))
        kept[recompute] = len(seen)
        del maps
        results[recompute] = run(prepare(build(name, with_cp=recompute)), x, sparsify(x, mask))
    errors = relative_error(results[True], results[False])
    # Running statistics move once more in the recomputation, as with torch's own checkpoint.
    assert errors['outputs'] == 0
    assert errors['gradients'] < 1e-12 and errors['image gradient'] < 1e-12
    assert kept[True] < 0.6 * kept[False]


def test_a_prepared_network_keeps_its_names_and_its_dense_result() -> None:
    plain, once = build('resnet50'), prepare(build('resnet50', with_cp=True))
    assert list(plain.state_dict()) == list(once.state_dict())
    x, _ = masked()
    for one, other in zip(plain(x), once(x), strict=True):
        torch.testing.assert_close(one, other)
    twice = prepare(prepare(build('resnet50', with_cp=True)))
    hooks = [[len(m._forward_pre_hooks) for m in network.modules()] for network in (once, twice)]
    assert hooks[0] == hooks[1] and hooks[0][0] == 0 and sum(hooks[0]) == 16
    assert not any(getattr(m, 'with_cp', False) for m in twice.modules())


def test_reentrant_checkpointing_is_refused_not_silent() -> None:
    x, mask = masked()
    with pytest.raises(UnsupportedOpError, match=r'prepare\(network\) first'):
        build('resnet50', with_cp=True)(sparsify(x, mask))
    norm = nn.BatchNorm2d(3).double()
    with pytest.raises(UnsupportedOpError, match=r'prepare\(network\) first'):
        torch.utils.checkpoint.checkpoint(
            lambda y: norm(y).relu(), sparsify(x, mask), use_reentrant=True
        )
    with torch.no_grad():
        assert not build('resnet50')(sparsify(x, mask))[-1].requires_grad


def test_random_blocks_are_not_recomputed() -> None:
    with pytest.raises(ValueError, match=r"Block 'layer\d.*DropPath.*drop_path_rate=0"):
        prepare(build('resnet50', with_cp=True, drop_path_rate=0.2))


def test_sync_bn_alone_is_batch_norm() -> None:
    x, mask = masked()
    results = []
    for convert in (nn.SyncBatchNorm.convert_sync_batchnorm, lambda network: network):
        network = prepare(convert(build('resnet50')))
        results.append(run(network, x.detach().clone().requires_grad_(), sparsify(x, mask)))
    torch.testing.assert_close(results[0]['outputs'], results[1]['outputs'])
    torch.testing.assert_close(results[0]['buffers'], results[1]['buffers'])


def test_sync_bn_that_was_not_prepared_is_refused() -> None:
    x, mask = masked()
    norm = nn.SyncBatchNorm(3)
    assert prepare(norm) is norm and type(norm) is not nn.SyncBatchNorm
    with pytest.raises(UnsupportedOpError, match=r'SyncBatchNorm call .*prepare\(network\)'):
        sparsify(x, mask).is_contiguous()


def test_sync_bn_counts_the_visible_positions_of_all_ranks(tmp_path: Path) -> None:
    """Two ranks with unequal visible counts do what batch norm does on the joined batch."""
    run_two_ranks(Path(sync_bn_worker.__file__), tmp_path)
    ranks = [torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(2)]
    joined = sync_bn_worker.step(slice(0, 4))
    for name, buffer in joined['buffers'].items():
        for rank in ranks:
            torch.testing.assert_close(rank['buffers'][name], buffer, rtol=1e-10, atol=1e-12)
    for name, gradient in joined['gradients'].items():
        both = ranks[0]['gradients'][name] + ranks[1]['gradients'][name]
        torch.testing.assert_close(both, gradient, rtol=1e-9, atol=1e-11)
