"""Token layouts, and layer curves of planted and of random attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.teachers import SIZES, beit, randomised, save
from helpers.tiny_hgkd import mae_file
from helpers.vits import noise, small_vit
from mmpretrain.models.backbones import DistilledVisionTransformer, T2T_ViT
from PIL import Image

from hgkd_mm.evaluation import attention_distance, attention_nmi, patch_distances
from hgkd_mm.inspect.attention import TokenLayout, attention_layers, draw_curves, token_layout
from hgkd_mm.models import MIMTeacher, TIMMTeacher
from hgkd_mm.models.qkv import read_qkv


def places(layout: TokenLayout) -> tuple[tuple[int, int], int, int]:
    return layout.grid, layout.prefix, layout.stride


def test_batches_make_no_difference() -> None:
    network, images = small_vit(), noise(5, 64, 80)
    layout = token_layout(network, (64, 80))
    with read_qkv(dict(enumerate(network.layers))) as found, torch.no_grad():
        network(images)
    got = attention_layers(network, layout, images.split(2))
    assert [layer['block'] for layer in got] == [0, 1, 2]
    for layer in got:
        attention = found[layer['block']].attention()
        distance = attention_distance(attention, grid=(4, 5), patch_size=16).mean(0)
        assert layer['distance'] == pytest.approx(distance.tolist(), rel=1e-4)
        assert layer['distance_mean'] == pytest.approx(np.mean(layer['distance']))
        assert layer['nmi'] == pytest.approx(attention_nmi(attention).mean(0).tolist(), rel=1e-3)
        assert layer['nmi_mean'] == pytest.approx(np.mean(layer['nmi']))


def test_queries_and_keys_of_zero_attend_to_all_alike() -> None:
    network = small_vit()
    network.train()  # dropped layers would show
    network.layers[1].attn.qkv.weight.data.zero_()
    network.layers[1].attn.qkv.bias.data.zero_()
    _, planted, _ = attention_layers(network, token_layout(network, (64, 64)), [noise(2)])
    uniform = 16 * patch_distances((4, 4)).mean().item()
    assert planted['distance'] == pytest.approx([uniform] * 2)
    assert planted['nmi'] == pytest.approx([0, 0], abs=1e-6)
    assert network.training


def test_of_each_kind_of_network(tmp_path: Path) -> None:
    expected = ((4, 5), 1, 16)
    network = small_vit()
    layout = token_layout(network, (64, 80))
    assert places(layout) == expected and layout.blocks == list(network.layers)
    without = small_vit(with_cls_token=False, out_type='raw')
    assert token_layout(without, (64, 80)).prefix == 0
    two = DistilledVisionTransformer(**SIZES)
    assert token_layout(two, (64, 80)).prefix == 2
    assert token_layout(beit(), (64, 64)).grid == (4, 4)
    teacher = MIMTeacher(checkpoint=mae_file(tmp_path), **SIZES)
    assert places(token_layout(teacher, (64, 80))) == expected


def test_of_timm_with_registers(tmp_path: Path) -> None:
    name = 'vit_tiny_patch16_224'
    settings = dict(img_size=64, depth=1, reg_tokens=2)
    network = randomised(timm.create_model(name, num_classes=0, **settings))
    file = save(network.state_dict(), tmp_path / 'vit.pth')
    teacher = TIMMTeacher(name=name, checkpoint=file, model_kwargs=settings)
    layout = token_layout(teacher, (64, 64))
    assert places(layout) == ((4, 4), 3, 16)
    (layer,) = attention_layers(teacher, layout, [noise(1)])
    assert len(layer['distance']) == 3 and all(value > 0 for value in layer['nmi'])


def test_networks_that_are_refused() -> None:
    with pytest.raises(TypeError, match='T2T_ViT'):
        token_layout(T2T_ViT(img_size=64), (64, 64))
    with pytest.raises(ValueError, match='16 x 8'):
        token_layout(small_vit(patch_cfg=dict(stride=(16, 8))), (64, 64))


def test_curves_are_drawn(tmp_path: Path) -> None:
    layers = [dict(distance=[10.0, 20.0 + index], nmi=[0.1, 0.2]) for index in range(3)]
    path = draw_curves(layers, tmp_path / 'new' / 'layers.png', title='x' * 300, uniform=40.0)
    width, height = Image.open(path).size
    assert width > 2 * height and np.asarray(Image.open(path)).std() > 5
