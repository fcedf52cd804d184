"""Official names, written out here a second time, and mmpretrain's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.teachers import DECODER, PATCH, SIZES, beit, images, mae_parts, prefixed, save
from mmpretrain.models.backbones import BEiTViT
from safetensors.torch import save_file
from torch import Tensor, nn

from hgkd_mm.models.teachers import MIMTeacher
from hgkd_mm.models.teachers.conversion import to_mmpretrain
from hgkd_mm.sparse import CellMask


def official_block(theirs: str, block: nn.Module) -> dict[str, Tensor]:
    """One transformer block as timm, MAE and BEiT name its parts."""
    hidden, out = block.ffn.layers[0][0], block.ffn.layers[1]
    named = {
        'norm1.weight': block.ln1.weight,
        'norm1.bias': block.ln1.bias,
        'norm2.weight': block.ln2.weight,
        'norm2.bias': block.ln2.bias,
        'attn.qkv.weight': block.attn.qkv.weight,
        'attn.proj.weight': block.attn.proj.weight,
        'attn.proj.bias': block.attn.proj.bias,
        'mlp.fc1.weight': hidden.weight,
        'mlp.fc1.bias': hidden.bias,
        'mlp.fc2.weight': out.weight,
        'mlp.fc2.bias': out.bias,
    }
    return {f'{theirs}.{name}': value.detach().clone() for name, value in named.items()}


def official_stem(vit: nn.Module) -> dict[str, Tensor]:
    return {
        'cls_token': vit.cls_token.detach().clone(),
        'patch_embed.proj.weight': vit.patch_embed.projection.weight.detach().clone(),
        'patch_embed.proj.bias': vit.patch_embed.projection.bias.detach().clone(),
        'norm.weight': vit.ln1.weight.detach().clone(),
        'norm.bias': vit.ln1.bias.detach().clone(),
    }


def official_mae() -> dict[str, Tensor]:
    """mae_pretrain_vit_*_full.pth: encoder and decoder side by side."""
    vit, neck = mae_parts()
    weights = official_stem(vit)
    weights['pos_embed'] = vit.pos_embed.detach().clone()
    for i, block in enumerate(vit.layers):
        weights.update(official_block(f'blocks.{i}', block))
        weights[f'blocks.{i}.attn.qkv.bias'] = block.attn.qkv.bias.detach().clone()
    for i, block in enumerate(neck.decoder_blocks):
        weights.update(official_block(f'decoder_blocks.{i}', block))
        weights[f'decoder_blocks.{i}.attn.qkv.bias'] = block.attn.qkv.bias.detach().clone()
    weights['decoder_norm.weight'] = neck.ln1.weight.detach().clone()
    weights['decoder_norm.bias'] = neck.ln1.bias.detach().clone()
    for name in ('mask_token', 'decoder_pos_embed'):
        weights[name] = getattr(neck, name).detach().clone()
    for name in ('decoder_embed', 'decoder_pred'):
        weights[f'{name}.weight'] = getattr(neck, name).weight.detach().clone()
        weights[f'{name}.bias'] = getattr(neck, name).bias.detach().clone()
    return weights


def official_beit() -> dict[str, Tensor]:
    """beit(v2)_base_patch16_224_pt*.pth."""
    vit = beit()
    weights = official_stem(vit)
    weights['mask_token'] = vit.mask_token.detach().clone()
    weights['lm_head.weight'] = torch.zeros(8, 24)
    weights['cls_pt_layers.0.norm1.weight'] = torch.zeros(24)
    for i, block in enumerate(vit.layers):
        weights.update(official_block(f'blocks.{i}', block))
        weights[f'blocks.{i}.attn.q_bias'] = block.attn.q_bias.detach().clone()
        weights[f'blocks.{i}.attn.v_bias'] = block.attn.v_bias.detach().clone()
        weights[f'blocks.{i}.gamma_1'] = block.gamma_1.detach().clone()
        weights[f'blocks.{i}.gamma_2'] = block.gamma_2.detach().clone()
    table = vit.rel_pos_bias.relative_position_bias_table
    weights['rel_pos_bias.relative_position_bias_table'] = table.detach().clone()
    weights['rel_pos_bias.relative_position_index'] = torch.zeros(17, 17).long()
    return weights


def as_map(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, 4, 4)


@torch.no_grad()
@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_official_mae(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f'mae.{ending}'
    weights = official_mae()
    if ending == 'pth':
        save(weights, path, 'model')
    else:
        save_file(weights, path)
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


def test_official_names_are_those_of_mmpretrain() -> None:
    vit, neck = mae_parts()
    weights = {**prefixed('backbone.', vit), **prefixed('neck.', neck), 'head.x': torch.zeros(1)}
    ours = to_mmpretrain(weights, family='mae', source='here')
    theirs = to_mmpretrain(official_mae(), family='mae', source='here')
    assert ours.unused == ['head.x'] and theirs.official and not ours.official
    for sorted_out in (ours, theirs):
        assert sorted_out.encoder.keys() == vit.state_dict().keys()
        assert sorted_out.decoder.keys() == neck.state_dict().keys()


def test_a_cnn_is_not_a_vision_transformer(tmp_path: Path) -> None:
    path = save({'conv1.weight': torch.zeros(1), 'bn1.bias': torch.zeros(1)}, tmp_path / 'r.pth')
    with pytest.raises(ValueError, match=r'r.pth is not a vision.*found conv1.weight, bn1.bias'):
        MIMTeacher(checkpoint=path, family='mae', arch='b', patch_size=PATCH)
