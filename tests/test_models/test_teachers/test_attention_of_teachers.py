"""What heads ask of a transformer: its blocks' queries, keys and values, and a token grid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.teachers import SIZES, images, prefixed, randomised, save
from mmpretrain.models.backbones import VisionTransformer

from hgkd_mm.models.teachers import MIMTeacher
from hgkd_mm.sparse import CellMask


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    vit = randomised(VisionTransformer(**SIZES), 4)
    return save(prefixed('backbone.', vit), tmp_path / 'vit.pth')


def build(weights: Path, **settings: object) -> MIMTeacher:
    return MIMTeacher(checkpoint=weights, family='vit', **SIZES, **settings).double()


@pytest.mark.parametrize('view', ['full', 'visible'])
def test_queries_keys_and_values_are_the_blocks_own(weights: Path, view: str) -> None:
    teacher, x = build(weights, teacher_view=view), images()
    visible = torch.tensor([[[0, 1], [0, 1]], [[1, 1], [0, 0]], [[1, 0], [0, 1]]]).bool()
    teacher.read_layers([1])
    seen = []
    teacher.vit.layers[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    layer = teacher(x, CellMask(visible)).layers[1]
    block = teacher.vit.layers[1]
    qkv = block.attn.qkv(block.ln1(seen[0]))  # (B, 1 + N, 3 * 24)
    q, k, v = qkv.unflatten(2, (3, 2, 12)).permute(2, 0, 3, 1, 4)  # of 2 heads
    for name, value in (('q', q), ('k', k), ('v', v)):
        torch.testing.assert_close(getattr(layer.qkv, name), value)
    assert layer.prefix == 1
    if view == 'full':
        assert layer.index is None
    else:
        # Cells of 2 x 2 tokens: the right half, the upper half, the two corners.
        assert layer.index.tolist() == [
            [2, 3, 6, 7, 10, 11, 14, 15],
            [0, 1, 2, 3, 4, 5, 6, 7],
            [0, 1, 4, 5, 10, 11, 14, 15],
        ]


def test_relations_of_unequal_numbers_of_tokens_are_refused(weights: Path) -> None:
    teacher = build(weights, teacher_view='visible')
    teacher.read_layers([0])
    ragged = torch.tensor([[[0, 1], [0, 0]], [[1, 1], [0, 1]], [[1, 1], [1, 1]]]).bool()
    with pytest.raises(ValueError, match=r'got \[4, 12, 16\] tokens'):
        teacher(images(), CellMask(ragged))


def test_a_teacher_of_another_patch_size_sees_the_images_resized(weights: Path) -> None:
    """Patches of 16, one for 8 px of the student: the teacher's image is twice as large."""
    teacher, small = build(weights, token_stride=8), images((32, 32))
    assert teacher.patch_size == 8 and teacher.grid((32, 32)) == (4, 4)
    large = F.interpolate(small, (64, 64), mode='bicubic', antialias=True)
    expected = build(weights)(large)
    output = teacher(small)
    torch.testing.assert_close(output.tokens, expected.tokens)
    torch.testing.assert_close(output.cls, expected.cls)
    plain = torch.full((1, 3, 32, 32), 0.7, dtype=torch.float64)
    same = build(weights)(torch.full((1, 3, 64, 64), 0.7, dtype=torch.float64))
    torch.testing.assert_close(teacher(plain).tokens, same.tokens)
