"""Layer curves and maps of planted and of random attention."""

from __future__ import annotations

import pytest
import torch
from helpers.vits import noise, small_vit, subject_of
from torch import nn

from hgkd_mm.analysis import TokenLayout, attention_curves, attention_maps, token_layout
from hgkd_mm.evaluation import attention_distance, attention_nmi, patch_distances
from hgkd_mm.models.qkv import attention_blocks, read_qkv


def blocks_of(network: nn.Module) -> dict[int, nn.Module]:
    return dict(enumerate(attention_blocks(network)))


def test_batches_make_no_difference() -> None:
    network, images = small_vit(), noise(5, 64, 80)
    blocks, layout = blocks_of(network), token_layout(network, (64, 80))
    with read_qkv(blocks) as found, torch.no_grad():
        network(images)
    got = attention_curves(subject_of(network), blocks, layout, images.split(2))
    assert [layer.block for layer in got] == [0, 1, 2]
    for layer in got:
        attention = found[layer.block].attention()
        distance = attention_distance(attention, grid=(4, 5), patch_size=16).mean(0)
        assert layer.distance == pytest.approx(distance.tolist(), rel=1e-4)
        assert layer.nmi == pytest.approx(attention_nmi(attention).mean(0).tolist(), rel=1e-3)


def test_queries_and_keys_of_zero_attend_to_all_alike() -> None:
    network = small_vit()
    network.train()  # dropped layers would show
    network.layers[1].attn.qkv.weight.data.zero_()
    network.layers[1].attn.qkv.bias.data.zero_()
    layout = token_layout(network, (64, 64))
    _, planted, _ = attention_curves(subject_of(network), blocks_of(network), layout, [noise(2)])
    uniform = 16 * patch_distances((4, 4)).mean().item()
    assert planted.distance == pytest.approx([uniform] * 2)
    assert planted.nmi == pytest.approx([0, 0], abs=1e-6)
    assert network.training


def test_maps_are_rows_of_the_mean_over_heads() -> None:
    network, images = small_vit(), noise(3, 64, 80)
    layout = token_layout(network, (64, 80))
    chosen = {2: network.layers[2]}
    with read_qkv(chosen) as found, torch.no_grad():
        network(images)
    rows = found[2].attention()[:, :, [0, 8], 1:].double()
    rows = (rows / rows.sum(-1, keepdim=True)).mean(1)
    maps = attention_maps(subject_of(network), chosen, layout, images, [0, 8])
    assert maps.keys() == {2} and maps[2].shape == (3, 2, 4, 5)
    torch.testing.assert_close(maps[2].flatten(2), rows)
    torch.testing.assert_close(maps[2].sum((2, 3)), torch.ones(3, 2).double())


def test_other_layouts_are_refused() -> None:
    network = small_vit()
    wrong = TokenLayout(grid=(4, 5), prefix=1, stride=16)
    with pytest.raises(ValueError, match='not a grid of 4 x 5'):
        attention_curves(subject_of(network), blocks_of(network), wrong, [noise(1)])
    with pytest.raises(ValueError, match='Block 0 has 16 patches where the image has 4 x 5'):
        attention_maps(subject_of(network), blocks_of(network), wrong, noise(1), [1])
