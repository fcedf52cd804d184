"""MIMTeacher against mmpretrain's own forward passes and hand-written ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.teachers import (
    DECODER,
    IMG_SIZE,
    PATCH,
    SIZES,
    beit,
    images,
    mae_parts,
    prefixed,
    randomised,
    save,
)
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from hgkd_mm.models.teachers import MIMTeacher
from hgkd_mm.sparse import CellMask

GRID = (IMG_SIZE // PATCH, IMG_SIZE // PATCH)
# Each cell is 2 x 2 tokens.
VISIBLE = torch.tensor([[[0, 1], [0, 1]], [[1, 1], [0, 0]], [[1, 0], [0, 1]]], dtype=torch.bool)


@pytest.fixture
def mae_file(tmp_path: Path) -> Path:
    encoder, decoder = mae_parts()
    return save(
        {**prefixed('backbone.', encoder), **prefixed('neck.', decoder)}, tmp_path / 'mae.pth'
    )


def mae_teacher(path: Path, **settings: object) -> MIMTeacher:
    if settings.get('teacher_view') == 'mim':
        settings['decoder'] = DECODER
    return MIMTeacher(checkpoint=path, family='mae', **{**SIZES, **settings}).double()


def beit_teacher(path: Path, **settings: object) -> MIMTeacher:
    save(prefixed('backbone.', beit()), path)
    return MIMTeacher(checkpoint=path, family='beit', **{**SIZES, **settings}).double()


def as_map(tokens: Tensor, grid: tuple[int, int] = GRID) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


def token_mask(visible: Tensor) -> Tensor:
    """(B, N): each cell is 2 x 2 tokens, spelled out."""
    flags = torch.zeros(len(visible), *GRID, dtype=torch.bool)
    for b, row, column in torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(4)):
        flags[b, row, column] = visible[b, row // 2, column // 2]
    return flags.flatten(1)


def kept_by_hand(vit: VisionTransformer, picture: Tensor, kept: Tensor) -> Tensor:
    """One image through mmpretrain's blocks, hidden tokens left out: class token first."""
    patches = vit.patch_embed(picture.unsqueeze(0))[0] + vit.pos_embed[:, 1:]
    x = torch.cat([vit.cls_token + vit.pos_embed[:, :1], patches[:, kept.nonzero()[:, 0]]], 1)
    for layer in vit.layers:
        x = layer(x)
    return vit.ln1(x)[0]


@torch.no_grad()
def test_full_view_is_mmpretrains_forward(mae_file: Path) -> None:
    vit = mae_parts()[0].double()
    x = images()
    raw = vit(x, mask=None)[0]
    out = mae_teacher(mae_file)(x)
    torch.testing.assert_close(out.tokens, as_map(raw[:, 1:]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(out.embedding, raw[:, 1:].mean(1), rtol=1e-10, atol=1e-10)
    assert out.valid.shape == (3, *GRID) and out.valid.all()
    out = mae_teacher(mae_file, embedding='cls')(x)
    torch.testing.assert_close(out.embedding, raw[:, 0], rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize('layer', [0, 1, -2])
def test_layer_is_that_blocks_output_and_later_blocks_do_not_run(
    mae_file: Path, layer: int
) -> None:
    vit = randomised(VisionTransformer(**SIZES, out_type='raw', out_indices=[layer]), 1).double()
    vit.load_state_dict(mae_parts()[0].state_dict())
    teacher = mae_teacher(mae_file, layer=layer)
    ran = []
    for number, block in enumerate(teacher.vit.layers):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))
    x = images()
    torch.testing.assert_close(teacher(x).tokens, as_map(vit(x)[0][:, 1:]), rtol=1e-10, atol=1e-10)
    assert ran == list(range(layer % 3 + 1))


@torch.no_grad()
def test_visible_view_of_mae_is_the_encoder_on_the_kept_tokens(mae_file: Path) -> None:
    vit, x = mae_parts()[0].double(), images()
    teacher = mae_teacher(mae_file, teacher_view='visible')
    seen: list[tuple[int, ...]] = []
    teacher.vit.layers[0].register_forward_hook(lambda _, xs, __: seen.append(tuple(xs[0].shape)))
    out = teacher(x, CellMask(VISIBLE))
    assert seen == [(3, 1 + 8, 24)]
    kept = token_mask(VISIBLE)
    torch.testing.assert_close(out.valid.flatten(1), kept)
    for b in range(3):
        wanted = torch.zeros(16, 24, dtype=torch.float64)
        wanted[kept[b]] = kept_by_hand(vit, x[b], kept[b])[1:]
        got = out.tokens[b].flatten(1).T
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
        mean = wanted[kept[b]].mean(0)
        torch.testing.assert_close(out.embedding[b], mean, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(('family', 'view'), [('mae', 'visible'), ('mae', 'mim'), ('beit', 'mim')])
def test_what_is_hidden_never_reaches_the_teacher(
    tmp_path: Path, mae_file: Path, family: str, view: str
) -> None:
    build = {
        'mae': lambda: mae_teacher(mae_file, teacher_view=view),
        'beit': lambda: beit_teacher(tmp_path / 'beit.pth', teacher_view=view),
    }
    teacher, x = build[family](), images()
    hidden = ~token_mask(VISIBLE).view(3, 1, *GRID)
    other = torch.where(hidden.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3), x + 7, x)
    before, after = teacher(x, CellMask(VISIBLE)), teacher(other, CellMask(VISIBLE))
    torch.testing.assert_close(after.tokens, before.tokens, rtol=0, atol=0)
    torch.testing.assert_close(after.embedding, before.embedding, rtol=0, atol=0)


@torch.no_grad()
def test_mim_view_of_mae_is_its_decoder(mae_file: Path) -> None:
    vit, neck = (part.double() for part in mae_parts())
    teacher, x = mae_teacher(mae_file, teacher_view='mim'), images()
    assert teacher.embed_dim == 16 and teacher.embedding_dim == 24
    out = teacher(x, CellMask(VISIBLE))
    assert out.valid.all()
    kept = token_mask(VISIBLE)
    for b in range(3):
        latent = kept_by_hand(vit, x[b], kept[b])
        shuffled = torch.cat([kept[b].nonzero()[:, 0], (~kept[b]).nonzero()[:, 0]])
        pixels = neck(latent[None], shuffled.argsort()[None])
        # mmpretrain's decoder ends in a projection to pixels; apply it to the features.
        ours = neck.decoder_pred(out.tokens[b].flatten(1).T)
        torch.testing.assert_close(ours, pixels[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out.embedding[b], latent[1:].mean(0), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_mim_view_of_beit_is_its_pretraining_forward(tmp_path: Path) -> None:
    teacher = beit_teacher(tmp_path / 'beit.pth', teacher_view='mim')
    x, kept = images(), token_mask(VISIBLE)
    wanted = beit().double()(x, ~kept.view(3, *GRID))[0][:, 1:]
    out = teacher(x, CellMask(VISIBLE))
    assert out.valid.all()
    torch.testing.assert_close(out.tokens, as_map(wanted), rtol=1e-9, atol=1e-9)
    mean = (wanted * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True)
    torch.testing.assert_close(out.embedding, mean, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_full_view_of_beit_is_mmpretrains_forward(tmp_path: Path) -> None:
    x, teacher = images(), beit_teacher(tmp_path / 'beit.pth', layer=1)
    vit = beit().double()
    vit.out_indices = [1]
    wanted = BEiTViT.forward(vit, x)[0][:, 1:]
    torch.testing.assert_close(teacher(x).tokens, as_map(wanted), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r'\(64, 64\) pixels .* got images of \(48, 80\)'):
        teacher(images((48, 80)))


@torch.no_grad()
@pytest.mark.parametrize('size', [(48, 80), (32, 32)])
def test_positions_follow_the_input_size(mae_file: Path, size: tuple[int, int]) -> None:
    vit, x = mae_parts()[0].double(), images(size)
    teacher = mae_teacher(mae_file)
    grid = (size[0] // PATCH, size[1] // PATCH)
    assert teacher.grid(size) == grid
    out = teacher(x)
    assert out.tokens.shape == (3, 24, *grid) and out.valid.shape == (3, *grid)
    wanted = vit(x, mask=None)[0][:, 1:]
    torch.testing.assert_close(out.tokens, as_map(wanted, grid), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_mim_decoder_positions_follow_a_non_square_input(mae_file: Path) -> None:
    teacher, x = mae_teacher(mae_file, teacher_view='mim'), images((32, 96), batch=2)
    neck = mae_parts()[1].double()
    visible = torch.tensor([[[1, 0, 1]], [[0, 1, 1]]], dtype=torch.bool)
    out = teacher(x, CellMask(visible))
    assert out.tokens.shape == (2, 16, 2, 6)
    # With everything visible, the decoder sees the encoder's tokens and no mask token.
    everything = teacher(x, CellMask.full(batch=2, grid=(1, 3)))
    encoder = mae_teacher(mae_file)
    raw = encoder(x).tokens.flatten(2).transpose(1, 2)
    cls = mae_teacher(mae_file, embedding='cls')(x).embedding
    h = neck.decoder_embed(torch.cat([cls[:, None], raw], 1))
    h = h + resize_pos_embed(neck.decoder_pos_embed, (4, 4), (2, 6))
    for block in neck.decoder_blocks:
        h = block(h)
    wanted = as_map(neck.decoder_norm(h)[:, 1:], (2, 6))
    torch.testing.assert_close(everything.tokens, wanted, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_images_normalised_for_the_student_are_converted(tmp_path: Path) -> None:
    teacher = beit_teacher(tmp_path / 'beit.pth', mean=[127.5] * 3, std=[127.5, 100, 50])
    pixels = images().abs() * 60
    own = (pixels - 127.5) / torch.tensor([127.5, 100, 50]).view(1, 3, 1, 1)
    wanted = teacher(own.double()).tokens
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    student = (pixels - torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1)) / torch.tensor(
        std, dtype=torch.float64
    ).view(1, 3, 1, 1)
    teacher.match_input(mean, std)
    torch.testing.assert_close(teacher(student).tokens, wanted, rtol=1e-8, atol=1e-8)
    teacher.match_input([127.5] * 3, [127.5, 100, 50])
    torch.testing.assert_close(teacher(own.double()).tokens, wanted, rtol=0, atol=0)


def test_own_normalization_can_be_set(tmp_path: Path, mae_file: Path) -> None:
    imagenet = (123.675, 116.28, 103.53)
    assert mae_teacher(mae_file).mean == imagenet
    path = tmp_path / 'beit.pth'
    assert beit_teacher(path).mean == imagenet  # mmpretrain's pre-training
    changed = beit_teacher(path, mean=[1, 2, 3], std=[4, 5, 6])
    assert (changed.mean, changed.std) == ((1, 2, 3), (4, 5, 6))


def test_making_a_teacher_draws_no_random_numbers(mae_file: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    mae_teacher(mae_file, teacher_view='mim')
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(('family', 'view'), [('mae', 'visible'), ('mae', 'mim'), ('beit', 'mim')])
def test_runs_under_autocast(tmp_path: Path, mae_file: Path, family: str, view: str) -> None:
    if family == 'mae':
        teacher = mae_teacher(mae_file, teacher_view=view).float()
    else:
        teacher = beit_teacher(tmp_path / 'beit.pth', teacher_view=view).float()
    x, mask = images().float(), CellMask(VISIBLE)
    wanted = teacher(x, mask)
    with torch.autocast('cpu', torch.bfloat16):
        out = teacher(x, mask)
    for name in ('tokens', 'embedding'):
        exact, rounded = getattr(wanted, name), getattr(out, name).float()
        assert 0 < (rounded - exact).norm() / exact.norm() < 0.1
