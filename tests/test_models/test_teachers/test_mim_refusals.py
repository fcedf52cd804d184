"""What MIMTeacher refuses, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.teachers import DECODER, SIZES, beit, images, mae_parts, prefixed, randomised, save
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.selfsup import MoCoV3ViT

from hgkd_mm.models.teachers import MIMTeacher
from hgkd_mm.sparse import CellMask


@pytest.fixture
def mae_file(tmp_path: Path) -> Path:
    return save(prefixed('backbone.', mae_parts()[0]), tmp_path / 'mae.pth')


def mae_teacher(path: Path, **settings: object) -> MIMTeacher:
    return MIMTeacher(checkpoint=path, family='mae', **{**SIZES, **settings})


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'checkpoint': None}, 'checkpoint is None'),
        ({'checkpoint': 'nowhere/x.pth'}, 'no checkpoint at nowhere/x.pth'),
        ({'family': 'dino'}, "family is 'dino', expected one of 'mae', 'beit', 'beitv2', 'vit'"),
        ({'family': 'vit', 'teacher_view': 'mim'}, "family='vit' is 'mim', .* 'full', 'visible'"),
        ({'family': 'beit', 'teacher_view': 'visible'}, "is 'visible', .* 'full', 'mim'"),
        ({'arch': 'xxl'}, "arch is 'xxl'"),
        ({'embedding': 'max'}, "embedding is 'max'"),
        ({'layer': 3}, r'layer=\[3\] .* 3 blocks'),
        ({'img_size': 96}, r'pos_embed is \(1, 17, 24\), needed \(1, 37, 24\)'),
    ],
)
def test_refuses_bad_settings(mae_file: Path, settings: dict, sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError, RuntimeError), match=sentence):
        MIMTeacher(**{'checkpoint': mae_file, 'family': 'mae', **SIZES, **settings})


def test_refuses_a_missing_encoder_weight_by_name(tmp_path: Path) -> None:
    weights = prefixed('backbone.', mae_parts()[0])
    del weights['backbone.layers.1.attn.qkv.weight'], weights['backbone.ln1.bias']
    path = save(weights, tmp_path / 'cut.pth')
    with pytest.raises(RuntimeError, match='2 missing') as error:
        mae_teacher(path)
    text = str(error.value)
    assert 'layers.1.attn.qkv.weight' in text and 'ln1.bias' in text and str(path) in text
    assert 'of 42 weights' in text and 'config keys checkpoint, family, arch' in text


def test_refuses_layer_scale_by_name(tmp_path: Path) -> None:
    vit = randomised(VisionTransformer(**SIZES, layer_scale_init_value=1e-5))
    path = save(prefixed('backbone.', vit), tmp_path / 'dinov2.pth')
    with pytest.raises(RuntimeError, match=r'6 weights.*layers\.0\.attn\.gamma1\.weight'):
        MIMTeacher(checkpoint=path, family='vit', **SIZES)


def test_mim_refuses_a_decoder_with_more_blocks(tmp_path: Path) -> None:
    encoder, decoder = mae_parts()
    weights = {**prefixed('backbone.', encoder), **prefixed('neck.', decoder)}
    path = save(weights, tmp_path / 'mae.pth')
    with pytest.raises(RuntimeError, match=r'decoder_blocks\.1\..*config key decoder'):
        mae_teacher(path, teacher_view='mim', decoder={**DECODER, 'decoder_depth': 1})


@torch.no_grad()
def test_refuses_six_heads_for_moco_v3(tmp_path: Path) -> None:
    vit = randomised(MoCoV3ViT(arch='mocov3-small', img_size=32, patch_size=16, out_type='raw'))
    weights = prefixed('backbone.', vit)
    weights['momentum_encoder.module.0.cls_token'] = torch.zeros(1, 1, 384)
    settings = {'checkpoint': save(weights, tmp_path / 'moco.pth'), 'family': 'vit'}
    arch = {'embed_dims': 384, 'num_layers': 12, 'num_heads': 12}
    for six in ('s', arch | {'num_heads': 6}):
        with pytest.raises(ValueError, match=r'moco.pth.* 6: set arch=.*num_heads=12'):
            MIMTeacher(**settings, img_size=32, arch=six)
    x = images((32, 32)).float()
    tokens = MIMTeacher(**settings, img_size=32, arch=arch)(x).tokens
    torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), vit(x)[0][:, 1:])


def test_mim_refuses_a_file_without_decoder(tmp_path: Path) -> None:
    path = save(prefixed('backbone.', mae_parts()[0]), tmp_path / 'encoder.pth')
    mae_teacher(path)
    with pytest.raises(RuntimeError, match='decoder of the teacher.*mask_token.*encoder-only'):
        mae_teacher(path, teacher_view='mim')


def test_refuses_fine_tuned_weights(tmp_path: Path) -> None:
    vit = randomised(VisionTransformer(**SIZES, out_type='raw', final_norm=False))
    path = save(prefixed('backbone.', vit), tmp_path / 'mae.pth')
    with pytest.raises(RuntimeError, match=r'ln1.weight.*Fine-tuned weights.*TIMMTeacher'):
        mae_teacher(path)
    # One position bias a block.
    path = save(prefixed('backbone.', beit(shared=False)), tmp_path / 'beit.pth')
    with pytest.raises(RuntimeError, match=r'missing: rel_pos_bias\.relative_position_bias_table'):
        MIMTeacher(checkpoint=path, family='beit', **SIZES)


@pytest.mark.parametrize(
    ('size', 'mask', 'sentence'),
    [
        (
            (64, 70),
            CellMask.full(batch=3, grid=(2, 2)),
            'Images of 64 x 70 pixels do not divide into the patches',
        ),
        ((64, 64), None, "teacher_view='visible' needs the student's mask"),
        (
            (64, 64),
            CellMask.full(batch=3, grid=(2, 8)),
            'has 4 x 4 tokens an image and the mask 2 x 8 cells',
        ),
    ],
)
def test_refuses_inputs_that_do_not_fit(
    mae_file: Path, size: tuple[int, int], mask: CellMask | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        mae_teacher(mae_file, teacher_view='visible')(images(size), mask)


@pytest.mark.parametrize(('arch', 'width', 'layers'), [('s', 384, 12), ('b', 768, 12)])
def test_named_sizes_are_those_of_the_papers(
    tmp_path: Path, arch: str, width: int, layers: int
) -> None:
    empty = save({'backbone.cls_token': torch.zeros(1, 1, width)}, tmp_path / 'empty.pth')
    with pytest.raises(RuntimeError, match='does not fit') as error:
        MIMTeacher(checkpoint=empty, family='mae', arch=arch)
    # cls_token, pos_embed, patch_embed (2), final norm (2), and 12 tensors a block.
    assert f'1 of {6 + 12 * layers} weights ({5 + 12 * layers} missing' in str(error.value)
    assert '0 of another shape' in str(error.value)
