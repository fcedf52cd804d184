"""Teachers in a half type: near the full precision, rounded once, untouched by the student's."""

from pathlib import Path

import pytest
import torch
from helpers.teachers import SIZES, beit, images, mae_parts, prefixed, save

from hgkd_mm.models.teachers import FrozenTeachers, MIMTeacher
from hgkd_mm.sparse import CellMask


def weights(family: str, path: Path) -> Path:
    network = mae_parts()[0] if family == 'mae' else beit()
    return save(prefixed('backbone.', network), path)


@pytest.mark.parametrize('view', ['full', 'visible'])
@pytest.mark.parametrize('family', ['mae', 'beit'])
def test_bfloat16_is_near_float32(tmp_path: Path, family: str, view: str) -> None:
    path = weights(family, tmp_path / 'vit.pth')
    settings = dict(checkpoint=path, family=family, teacher_view=view, **SIZES)
    mask = CellMask.random(batch=3, grid=(2, 2), mask_ratio=0.5)
    x = images().float()
    want = MIMTeacher(**settings)(x, mask)
    got = MIMTeacher(**settings, dtype='bfloat16')(x, mask)
    error = (got.tokens.float() - want.tokens).norm() / want.tokens.norm()
    assert 0 < error < 0.03
    assert torch.equal(got.valid, want.valid)


def test_weights_of_products_are_rounded_once_and_norms_are_not(tmp_path: Path) -> None:
    teacher = MIMTeacher(checkpoint=weights('mae', tmp_path / 'vit.pth'), dtype='bfloat16', **SIZES)
    FrozenTeachers({'mim': teacher})
    block = teacher.encoder.vit.layers[0]
    assert block.attn.qkv.weight.dtype == torch.bfloat16
    assert block.ln1.weight.dtype == torch.float32


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    path = weights('mae', tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match="dtype='int8' is unknown; choose one of 'bfloat16'"):
        MIMTeacher(checkpoint=path, dtype='int8', **SIZES)
