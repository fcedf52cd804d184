"""Where the tokens are, and how queries are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from helpers.teachers import SIZES, beit, randomised, save
from helpers.tiny_hgkd import mae_file
from helpers.vits import noise, small_vit, subject_of
from mmpretrain.models.backbones import DistilledVisionTransformer, T2T_ViT

from hgkd_mm.analysis import TokenLayout, attention_curves, find_queries, token_layout
from hgkd_mm.models import MIMTeacher, TIMMTeacher


def test_of_each_kind_of_network(tmp_path: Path) -> None:
    expected = TokenLayout(grid=(4, 5), prefix=1, stride=16)
    assert token_layout(small_vit(), (64, 80)) == expected and expected.patches == 20
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
    (layer,) = attention_curves(subject_of(teacher), blocks, layout, [noise(1)])
    assert len(layer.distance) == 3 and all(value > 0 for value in layer.nmi)


def test_networks_and_sizes_that_are_refused() -> None:
    with pytest.raises(TypeError, match='tokens of T2T_ViT are in the image is not known'):
        token_layout(T2T_ViT(img_size=64), (64, 64))
    with pytest.raises(ValueError, match=r'fit images of 64 x 64 px .*img_size\).*--size 64'):
        token_layout(beit(), (96, 96))
    wide = small_vit(patch_cfg=dict(stride=(16, 8)))
    with pytest.raises(ValueError, match='every 16 x 8 px'):
        token_layout(wide, (64, 64))


def test_queries() -> None:
    layout = TokenLayout(grid=(4, 8), prefix=2, stride=16)
    assert find_queries(None, layout) == {'1,2': 12, '2,4': 22, '3,6': 32}
    assert find_queries(['cls', '0,0', '3,7'], layout) == {'cls': 0, '0,0': 2, '3,7': 33}
    # a grid of one row has one of the three
    assert find_queries([], TokenLayout(grid=(1, 1), prefix=0, stride=16)) == {'0,0': 0}


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('4,0', r'--queries 4,0 is outside of the 4 x 8 patches: rows go to 3, columns to 7'),
        ('0,-1', r"not a token: give ROW,COLUMN from 0,0 to 3,7 or 'cls'"),
        ('7', 'is not a token'),
        ('centre', 'is not a token'),
    ],
)
def test_names_that_are_no_queries(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_queries([name], TokenLayout(grid=(4, 8), prefix=1, stride=16))
    with pytest.raises(ValueError, match=r'--queries cls .* to 3,7\.'):
        find_queries(['cls'], TokenLayout(grid=(4, 8), prefix=0, stride=16))
