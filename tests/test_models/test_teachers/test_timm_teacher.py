"""TIMMTeacher against timm's own forward passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from helpers.teachers import images, randomised, save
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from torch import Tensor, nn

from hgkd_mm.models.teachers import TIMMTeacher
from hgkd_mm.sparse import CellMask

# Small networks that timm has for tests; a Swin, a BEiT and an EVA-02 cut down.
SWIN = {'embed_dim': 16, 'depths': (1, 1, 1, 1), 'num_heads': (1, 1, 2, 2), 'img_size': 64}
BEIT = {'embed_dim': 32, 'depth': 2, 'num_heads': 2, 'img_size': 64}
EVA = {**BEIT, 'img_size': 56, 'dynamic_img_size': True}


def network(name: str, **kwargs: object) -> nn.Module:
    return randomised(timm.create_model(name, pretrained=False, num_classes=0, **kwargs))


def saved(name: str, path: Path, **kwargs: object) -> Path:
    return save(network(name, **kwargs).state_dict(), path, None)


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 64), (32, 96)])
def test_vit_is_timms_forward(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved('test_vit', tmp_path / 'vit.pth')
    teacher = TIMMTeacher(name='test_vit', checkpoint=path).double()
    reference = network('test_vit', dynamic_img_size=True).double()
    x = images(size)
    raw = reference.forward_features(x)
    grid = (size[0] // 16, size[1] // 16)
    assert teacher.grid(size) == grid and teacher.patch_size == 16
    assert teacher.embed_dim == teacher.embedding_dim == 64
    out = teacher(x)
    wanted = raw[:, 1:].transpose(1, 2).reshape(3, 64, *grid)
    torch.testing.assert_close(out.tokens, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.embedding, raw[:, 1:].mean(1), rtol=1e-9, atol=1e-9)
    assert out.valid.all() and not out.tokens.requires_grad
    teacher = TIMMTeacher(name='test_vit', checkpoint=path, embedding='cls').double()
    torch.testing.assert_close(teacher(x).embedding, raw[:, 0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize('name', ['test_resnet', 'test_efficientnet'])
def test_cnn_gives_its_last_map(tmp_path: Path, name: str) -> None:
    save_file(network(name).state_dict(), tmp_path / 'cnn.safetensors')
    teacher = TIMMTeacher(name=name, checkpoint=tmp_path / 'cnn.safetensors').double()
    x = images((64, 96))
    wanted = network(name).double().forward_features(x)
    assert wanted.shape[2:] == teacher.grid((64, 96)) == (2, 3)
    out = teacher(x)
    torch.testing.assert_close(out.tokens, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.embedding, wanted.mean((2, 3)), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_swin_with_channels_last(tmp_path: Path) -> None:
    name = 'swin_tiny_patch4_window7_224'
    path = saved(name, tmp_path / 'swin.pth', **SWIN)
    teacher = TIMMTeacher(name=name, checkpoint=path, model_kwargs=SWIN).double()
    wanted = network(name, **SWIN).double().forward_features(images())
    assert wanted.shape == (3, 2, 2, 128)
    out = teacher(images()).tokens
    torch.testing.assert_close(out, wanted.permute(0, 3, 1, 2), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_beit_of_timm_has_a_fixed_size(tmp_path: Path) -> None:
    name = 'beit_base_patch16_224'
    path = saved(name, tmp_path / 'beit.pth', **BEIT)
    teacher = TIMMTeacher(name=name, checkpoint=path, model_kwargs=BEIT).double()
    assert teacher(images()).tokens.shape == (3, 32, 4, 4)
    with pytest.raises(AssertionError, match='96'):
        teacher(images((96, 96)))


def layer_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Over the last dimension, written out."""
    if 'Simple' in type(norm).__name__:
        return x / (x.var(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


@torch.no_grad()
@pytest.mark.parametrize(
    ('name', 'norm', 'size', 'kwargs'),
    [
        ('eva02_base_patch14_224', 'fc_norm', 56, EVA),
        ('beitv2_base_patch16_224', 'fc_norm', 64, BEIT),
        ('test_vit', 'fc_norm', 64, {'global_pool': 'avg'}),
        ('test_convnext', 'head.norm', 64, {}),
        ('test_mambaout', 'head.norm', 64, {}),
        ('convnext_zepto_rms', 'head.norm', 64, {}),
    ],
)
def test_features_are_normed_where_timm_norms_after_pooling(
    tmp_path: Path, name: str, norm: str, size: int, kwargs: dict
) -> None:
    path = saved(name, tmp_path / 'x.pth', **kwargs)
    reference, x = network(name, **kwargs).double(), images((size, size))
    norm = reference.get_submodule(norm)
    raw = reference.forward_features(x)
    if 'convnext' in name:
        raw = raw.permute(0, 2, 3, 1)
    cls, patches = raw.flatten(1, -2)[:, 0], raw.flatten(1, -2)[:, raw.dim() == 3 :]
    out = TIMMTeacher(name=name, checkpoint=path, model_kwargs=kwargs).double()(x)
    tokens = out.tokens.flatten(2).transpose(1, 2)
    close = {'rtol': 1e-9, 'atol': 1e-9}
    torch.testing.assert_close(tokens, layer_norm(patches, norm), **close)
    torch.testing.assert_close(out.embedding, layer_norm(patches.mean(1), norm), **close)
    if raw.dim() == 3:
        torch.testing.assert_close(out.cls, layer_norm(cls, norm), **close)


@pytest.mark.parametrize(
    ('kwargs', 'lost'),
    [({'init_values': 1e-5}, r'blocks\.0\.ls1\.gamma'), ({'pre_norm': True}, r'norm_pre\.weight')],
)
def test_refuses_weights_of_another_network(tmp_path: Path, kwargs: dict, lost: str) -> None:
    weights = {**network('test_vit').state_dict(), **network('test_vit', **kwargs).state_dict()}
    path = save(weights, tmp_path / 'vit.pth', None)
    with pytest.raises(RuntimeError, match=f'{lost}.*config keys name'):
        TIMMTeacher(name='test_vit', checkpoint=path)


def by_hand(vit: nn.Module, picture: Tensor, kept: Tensor) -> Tensor:
    """One image through timm's blocks, hidden tokens left out: class token first."""
    patches = vit.patch_embed(picture.unsqueeze(0)).flatten(1, 2)
    tokens = vit._pos_embed(patches.view(1, 4, 4, -1))
    prefix = vit.num_prefix_tokens
    x = torch.cat([tokens[:, :prefix], tokens[:, prefix:][:, kept.nonzero()[:, 0]]], dim=1)
    return vit.norm(vit.blocks(vit.norm_pre(x)))[0, prefix:]


@torch.no_grad()
@pytest.mark.parametrize(
    ('name', 'kwargs'),
    [('test_vit', {}), ('test_vit4', {}), ('test_vit', {'global_pool': 'avg'})],
)
def test_visible_view_drops_hidden_tokens(tmp_path: Path, name: str, kwargs: dict) -> None:
    path = saved(name, tmp_path / 'vit.pth', **kwargs)
    settings = {'name': name, 'checkpoint': path, 'model_kwargs': kwargs}
    teacher = TIMMTeacher(teacher_view='visible', **settings).double()
    reference = network(name, dynamic_img_size=True, **kwargs).double()
    visible = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]).bool()
    lengths = []
    teacher.model.blocks[0].register_forward_hook(
        lambda _, inputs, __: lengths.append(inputs[0].shape[1])
    )
    x = images()
    out = teacher(x, CellMask(visible))
    prefix = reference.num_prefix_tokens
    assert lengths == [prefix + 8]
    for b in range(3):
        kept = visible[b].repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
        wanted = torch.zeros(16, teacher.embed_dim, dtype=torch.float64)
        raw = by_hand(reference, x[b], kept)
        wanted[kept] = reference.fc_norm(raw)  # nothing, but for 'avg'
        got = out.tokens[b].flatten(1).T
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out.valid[b].flatten(), kept)
        mean = reference.fc_norm(raw.mean(0))
        torch.testing.assert_close(out.embedding[b], mean, rtol=1e-9, atol=1e-9)


def test_normalisation_comes_from_timm_and_can_be_set(tmp_path: Path) -> None:
    path = saved('test_vit', tmp_path / 'vit.pth')
    config = timm.get_pretrained_cfg('test_vit')
    teacher = TIMMTeacher(name='test_vit', checkpoint=path)
    assert teacher.mean == tuple(255 * m for m in config.mean)
    assert teacher.std == tuple(255 * s for s in config.std)
    teacher = TIMMTeacher(name='test_vit', checkpoint=path, mean=[1, 2, 3], std=[4, 5, 6])
    assert (teacher.mean, teacher.std) == ((1, 2, 3), (4, 5, 6))


def test_frozen_built_from_a_config_without_drawing_random_numbers(tmp_path: Path) -> None:
    path = saved('test_resnet', tmp_path / 'r.pth')
    torch.manual_seed(1)
    state = torch.get_rng_state()
    teacher = MODELS.build({'type': 'TIMMTeacher', 'name': 'test_resnet', 'checkpoint': str(path)})
    assert torch.equal(torch.get_rng_state(), state)
    teacher.train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'checkpoint': None}, 'checkpoint is None'),
        ({'name': 'vit_bas_patch16'}, 'Unknown model .*vit_bas_patch16'),
        ({'teacher_view': 'mim'}, "teacher_view is 'mim', expected one of 'full', 'visible'"),
        ({'embedding': 'max'}, "embedding is 'max'"),
    ],
)
def test_refuses_bad_settings(tmp_path: Path, settings: dict, sentence: str) -> None:
    path = saved('test_vit', tmp_path / 'vit.pth')
    with pytest.raises((ValueError, RuntimeError), match=sentence):
        TIMMTeacher(**{'name': 'test_vit', 'checkpoint': path, **settings})


@pytest.mark.parametrize('size', ['base_patch16', 'large_patch14'])
def test_refuses_openais_clip_with_the_wrong_gelu(tmp_path: Path, size: str) -> None:
    kwargs = {'model_kwargs': dict(embed_dim=64, depth=1, num_heads=1)}
    right = f'vit_{size}_clip_quickgelu_224.openai'
    path = tmp_path / 'clip.pth'
    small = timm.create_model(right, num_classes=0, **kwargs['model_kwargs'])
    torch.save(small.state_dict(), path)
    with pytest.raises(ValueError, match=f"QuickGELU: set the config key name to '{right}'"):
        TIMMTeacher(name=right.replace('_quickgelu', ''), checkpoint=path, **kwargs)
    teacher = TIMMTeacher(name=right, checkpoint=path, **kwargs)
    assert 'QuickGELU' in repr(teacher.model.blocks[0].mlp.act)
    # The same network for weights of others is no mistake.
    TIMMTeacher(name=f'vit_{size}_clip_224.laion2b', checkpoint=path, **kwargs)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'teacher_view': 'visible'}, "test_resnet is a ResNet. Set teacher_view='full'"),
        ({'embedding': 'cls'}, "no class token: set embedding='mean'"),
    ],
)
def test_refuses_what_a_cnn_cannot(tmp_path: Path, settings: dict, sentence: str) -> None:
    path = saved('test_resnet', tmp_path / 'r.pth')
    with pytest.raises(ValueError, match=sentence):
        TIMMTeacher(name='test_resnet', checkpoint=path, **settings)
