"""Token layouts, and layer curves and maps of planted and of random attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.teachers import SIZES, beit, randomised, save
from helpers.tiny_hgkd import mae_file
from helpers.vits import loaded, noise, small_vit
from mmpretrain.models.backbones import DistilledVisionTransformer, T2T_ViT
from PIL import Image
from torch import nn

from hgkd_mm.evaluation import attention_distance, attention_nmi, patch_distances
from hgkd_mm.inspect.attention_figures import (
    LayerAttention,
    TokenLayout,
    attention_curves,
    attention_maps,
    draw_curves,
    draw_maps,
    find_queries,
    paint_maps,
    token_layout,
)
from hgkd_mm.models import MIMTeacher, TIMMTeacher
from hgkd_mm.models.qkv import attention_blocks, read_qkv


def blocks_of(network: nn.Module) -> dict[int, nn.Module]:
    return dict(enumerate(attention_blocks(network)))


def test_batches_make_no_difference() -> None:
    network, images = small_vit(), noise(5, 64, 80)
    blocks, layout = blocks_of(network), token_layout(network, (64, 80))
    with read_qkv(blocks) as found, torch.no_grad():
        network(images)
    got = attention_curves(loaded(network), blocks, layout, images.split(2))
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
    _, planted, _ = attention_curves(loaded(network), blocks_of(network), layout, [noise(2)])
    uniform = 16 * patch_distances((4, 4)).mean().item()
    assert planted.distance == pytest.approx([uniform] * 2)
    assert planted.nmi == pytest.approx([0, 0], abs=1e-6)
    assert network.training
    wrong = TokenLayout(grid=(4, 5), prefix=1, stride=16)
    with pytest.raises(ValueError, match='4 x 5'):
        attention_curves(loaded(network), blocks_of(network), wrong, [noise(1)])


def test_maps_are_rows_of_the_mean_over_heads() -> None:
    network, images = small_vit(), noise(3, 64, 80)
    layout = token_layout(network, (64, 80))
    chosen = {2: network.layers[2]}
    with read_qkv(chosen) as found, torch.no_grad():
        network(images)
    rows = found[2].attention()[:, :, [0, 8], 1:].double()
    rows = (rows / rows.sum(-1, keepdim=True)).mean(1)
    maps = attention_maps(loaded(network), chosen, layout, images, [0, 8])
    assert maps.keys() == {2} and maps[2].shape == (3, 2, 4, 5)
    torch.testing.assert_close(maps[2].flatten(2), rows)
    torch.testing.assert_close(maps[2].sum((2, 3)), torch.ones(3, 2).double())


def test_of_each_kind_of_network(tmp_path: Path) -> None:
    expected = TokenLayout(grid=(4, 5), prefix=1, stride=16)
    assert token_layout(small_vit(), (64, 80)) == expected
    without = small_vit(with_cls_token=False, out_type='raw')
    assert token_layout(without, (64, 80)).prefix == 0
    two = DistilledVisionTransformer(**SIZES)
    assert token_layout(two, (64, 80)).prefix == 2
    assert token_layout(beit(), (64, 64)).grid == (4, 4)
    teacher = MIMTeacher(checkpoint=mae_file(tmp_path), **SIZES)
    assert token_layout(teacher, (64, 80)) == expected


def test_of_timm_with_registers(tmp_path: Path) -> None:
    name = 'vit_tiny_patch16_224'
    settings = dict(img_size=64, depth=1, reg_tokens=2)
    network = randomised(timm.create_model(name, num_classes=0, **settings))
    file = save(network.state_dict(), tmp_path / 'vit.pth')
    teacher = TIMMTeacher(name=name, checkpoint=file, model_kwargs=settings)
    layout = token_layout(teacher, (64, 64))
    assert layout == TokenLayout(grid=(4, 4), prefix=3, stride=16)
    blocks = dict(enumerate(teacher.blocks()))
    (layer,) = attention_curves(loaded(teacher), blocks, layout, [noise(1)])
    assert len(layer.distance) == 3 and all(value > 0 for value in layer.nmi)


def test_networks_and_sizes_that_are_refused() -> None:
    with pytest.raises(TypeError, match='T2T_ViT'):
        token_layout(T2T_ViT(img_size=64), (64, 64))
    with pytest.raises(ValueError, match=r'64 x 64.*img_size.*--size 64'):
        token_layout(beit(), (96, 96))
    wide = small_vit(patch_cfg=dict(stride=(16, 8)))
    with pytest.raises(ValueError, match='16 x 8'):
        token_layout(wide, (64, 64))


def test_queries() -> None:
    layout = TokenLayout(grid=(4, 8), prefix=2, stride=16)
    assert find_queries(None, layout) == {'1,2': 12, '2,4': 22, '3,6': 32}
    assert find_queries(['cls', '0,0', '3,7'], layout) == {'cls': 0, '0,0': 2, '3,7': 33}
    # a grid of one row has one of the three
    assert find_queries([], TokenLayout(grid=(1, 1), prefix=0, stride=16)) == {'0,0': 0}


@pytest.mark.parametrize('name', ['4,0', '0,8', '0,-1', '7', 'center'])
def test_names_that_are_no_queries(name: str) -> None:
    with pytest.raises(ValueError, match=rf"--queries {name} .* to 3,7 or 'cls'"):
        find_queries([name], TokenLayout(grid=(4, 8), prefix=1, stride=16))
    with pytest.raises(ValueError, match=r'--queries cls .* to 3,7\.'):
        find_queries(['cls'], TokenLayout(grid=(4, 8), prefix=0, stride=16))


def test_the_brightest_cell_is_that_of_the_weight_and_the_query_is_framed() -> None:
    pictures = np.full((2, 32, 48, 3), 100, np.uint8)
    weights = np.full((2, 2, 3), 0.01)
    weights[0, 1, 2] = weights[1, 0, 0] = 0.9
    painted = paint_maps(pictures, weights, 1)
    cells = painted.reshape(2, 2, 16, 3, 16, 3)[:, :, 4:12, :, 4:12].mean((2, 4, 5))
    assert np.unravel_index(cells[0].argmax(), (2, 3)) == (1, 2)
    assert np.unravel_index(cells[1].argmax(), (2, 3)) == (0, 0)
    framed = (painted == (0, 255, 255)).all(3)
    assert framed[0, 0, 16:32].all() and framed[0, :16, 16].all() and framed[0, 15, 31]
    # one pixel wide around 16 x 16
    assert framed.sum((1, 2)).tolist() == [60, 60]
    assert not (paint_maps(pictures, weights, -1) == (0, 255, 255)).all(3).any()
    # a grid that does not divide the image
    painted = paint_maps(np.zeros((1, 37, 50, 3), np.uint8), np.eye(3)[None], 4)
    assert painted.shape == (1, 37, 50, 3)


def test_files_are_written(tmp_path: Path) -> None:
    layers = [
        LayerAttention(block=index, distance=(10.0, 20.0 + index), nmi=(0.1, 0.2))
        for index in range(3)
    ]
    path = draw_curves(layers, tmp_path / 'new' / 'layers.png', title='x' * 300, uniform=40.0)
    width, height = Image.open(path).size
    assert width > 2 * height and np.asarray(Image.open(path)).std() > 5
    layout = TokenLayout(grid=(2, 3), prefix=1, stride=16)
    maps = {0: torch.rand(2, 2, 2, 3).double(), 5: torch.rand(2, 2, 2, 3).double()}
    pictures = np.zeros((2, 32, 48, 3), np.uint8)
    queries = {'cls': 0, '1,1': 5}
    path = draw_maps(pictures, maps, queries, layout, tmp_path / 'maps.png', title='maps')
    assert Image.open(path).width > 5 * 1.5 * 130
