"""Official names, written out here a second time, and mmpretrain's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers.teachers import DECODER, PATCH, SIZES, beit, images, mae_parts, prefixed, save
from mmpretrain.models.backbones import BEiTViT
from safetensors.torch import save_file
from torch import Tensor, nn

from hgkd_mm.models.teachers import MIMTeacher
from hgkd_mm.sparse import CellMask


def official(weights: dict[str, Tensor], norm: str = 'norm.') -> dict[str, Tensor]:
    """Weights of a network of mmpretrain by the names that timm, MAE and BEiT give them."""
    names = (
        ('patch_embed.projection.', 'patch_embed.proj.'),
        ('.ffn.layers.0.0.', '.mlp.fc1.'),
        ('.ffn.layers.1.', '.mlp.fc2.'),
        ('.ln1.', '.norm1.'),
        ('.ln2.', '.norm2.'),
    )
    found = {}
    for name, value in weights.items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        name = re.sub('^layers', 'blocks', re.sub(r'^ln1\.', norm, name))
        found[name] = value.clone()
    return found


def official_mae() -> dict[str, Tensor]:
    """mae_pretrain_vit_*_full.pth: encoder and decoder side by side."""
    vit, neck = mae_parts()
    return official(vit.state_dict()) | official(neck.state_dict(), 'decoder_norm.')


def official_beit() -> dict[str, Tensor]:
    """beit(v2)_base_patch16_224_pt*.pth."""
    weights = official(beit().state_dict())
    weights['lm_head.weight'] = torch.zeros(8, 24)
    weights['cls_pt_layers.0.norm1.weight'] = torch.zeros(24)
    # Not used, since it follows from the grid.
    weights['rel_pos_bias.relative_position_index'] = torch.zeros(17, 17).long()
    return weights


def as_map(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, 4, 4)


@torch.no_grad()
def test_official_mae(tmp_path: Path) -> None:
    path = tmp_path / 'mae.safetensors'
    save_file(official_mae(), path)
    vit, neck = (part.double() for part in mae_parts())
    x = images()
    teacher = MIMTeacher(checkpoint=path, family='mae', **SIZES).double()
    raw = vit(x, mask=None)[0]
    torch.testing.assert_close(teacher(x).tokens, as_map(raw[:, 1:]), rtol=1e-9, atol=1e-9)
    teacher = MIMTeacher(
        checkpoint=path, family='mae', teacher_view='mim', decoder=DECODER, **SIZES
    ).double()
    out = teacher(x, CellMask.full(batch=3, grid=(2, 2)))
    pixels = neck(raw, torch.arange(16).expand(3, -1))
    ours = neck.decoder_pred(out.tokens.flatten(2).transpose(1, 2))
    torch.testing.assert_close(ours, pixels, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize('family', ['beit', 'beitv2'])
def test_official_beit(tmp_path: Path, family: str) -> None:
    path = save(official_beit(), tmp_path / 'beit.pth', 'model')
    teacher = MIMTeacher(checkpoint=path, family=family, **SIZES).double()
    vit, x = beit().double(), images()
    wanted = BEiTViT.forward(vit, x)[0][:, 1:]
    torch.testing.assert_close(teacher(x).tokens, as_map(wanted), rtol=1e-9, atol=1e-9)
    # unilm: BEiT on ImageNet-22k with 0.5, BEiT v2 with ImageNet's.
    assert teacher.mean[0] == (127.5 if family == 'beit' else 123.675)


@torch.no_grad()
def test_mmpretrains_beitv2_has_its_norm_in_the_neck(tmp_path: Path) -> None:
    vit, norm = beit(final_norm=False), nn.LayerNorm(24, eps=1e-6)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    weights = {
        **prefixed('backbone.', vit),
        **prefixed('neck.norm.', norm),
        'neck.patch_aggregation.0.ln1.weight': torch.zeros(24),
        'head.cls_head.weight': torch.zeros(8, 24),
        'target_generator.quantize.embedding.weight': torch.zeros(8, 4),
    }
    path = save(weights, tmp_path / 'beitv2.pth')
    teacher = MIMTeacher(checkpoint=path, family='beitv2', **SIZES).double()
    x = images()
    wanted = norm.double()(BEiTViT.forward(vit.double(), x)[0])[:, 1:]
    torch.testing.assert_close(teacher(x).tokens, as_map(wanted), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_bare_mmpretrain_backbone(tmp_path: Path) -> None:
    vit = mae_parts()[0]
    path = save(vit.state_dict(), tmp_path / 'bare.pth', None)
    teacher = MIMTeacher(checkpoint=path, family='mae', **SIZES).double()
    wanted = vit.double()(images(), mask=None)[0][:, 1:]
    torch.testing.assert_close(teacher(images()).tokens, as_map(wanted), rtol=1e-9, atol=1e-9)


def test_a_cnn_is_not_a_vision_transformer(tmp_path: Path) -> None:
    path = save({'conv1.weight': torch.zeros(1), 'bn1.bias': torch.zeros(1)}, tmp_path / 'r.pth')
    with pytest.raises(ValueError, match=r'r.pth is not a vision.*found conv1.weight, bn1.bias'):
        MIMTeacher(checkpoint=path, family='mae', arch='b', patch_size=PATCH)
