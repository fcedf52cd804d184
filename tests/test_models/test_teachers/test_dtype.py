"""Teachers in a half type: near the full precision, rounded once, untouched by the student's."""

from pathlib import Path

import pytest
import torch
from helpers.half import HALVES
from helpers.teachers import SIZES, beit, images, mae_parts, prefixed, save

from hgkd_mm.models.teachers import FrozenTeachers, MIMTeacher
from hgkd_mm.sparse import CellMask


def weights(family: str, path: Path) -> Path:
    network = mae_parts()[0] if family == 'mae' else beit()
    return save(prefixed('backbone.', network), path)


@pytest.mark.parametrize(('family', 'view'), [('mae', 'visible'), ('beit', 'full')])
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


@pytest.mark.parametrize('cast', ['half', 'double'])
@pytest.mark.parametrize('dtype', HALVES)
def test_casting_the_student_leaves_the_precision(
    tmp_path: Path, dtype: torch.dtype, cast: str
) -> None:
    path, x = weights('mae', tmp_path / 'vit.pth'), images().float()
    teacher = MIMTeacher(checkpoint=path, dtype=str(dtype).removeprefix('torch.'), **SIZES)
    want = teacher(x).tokens
    FrozenTeachers({'mim': teacher}).apply_(lambda t: getattr(t, cast)())
    block = teacher.vit.layers[0]
    assert block.attn.qkv.weight.dtype == dtype
    assert block.ln1.weight.dtype == teacher.scale.dtype == torch.float32
    error = (teacher(x).tokens - want).norm() / want.norm()
    assert error < (0.03 if cast == 'half' else 1e-6)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    path = weights('mae', tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match="dtype is 'int8', expected one of 'bfloat16'"):
        MIMTeacher(checkpoint=path, dtype='int8', **SIZES)
