"""Teachers in a half type: near the full precision, rounded once, untouched by the student's."""

from pathlib import Path

import pytest
import torch
from helpers.teachers import SIZES, beit, images, mae_parts, prefixed, save
from mmengine.utils import digit_version
from mmpretrain.models.backbones.beit import BEiTAttention

from hgkd_mm.models.qkv import FusedBEiTAttention
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


@pytest.mark.parametrize('cast', ['half', 'bfloat16', 'double', 'float'])
@pytest.mark.parametrize(
    'dtype',
    [
        'bfloat16',
        pytest.param(
            'float16',
            marks=pytest.mark.skipif(
                digit_version(torch.__version__) < digit_version('2.4'),
                reason='autocast of this torch knows no float16 on CPU',
            ),
        ),
    ],
)
def test_casting_the_student_leaves_the_precision(tmp_path: Path, dtype: str, cast: str) -> None:
    path, x = weights('mae', tmp_path / 'vit.pth'), images().float()
    teacher = MIMTeacher(checkpoint=path, dtype=dtype, **SIZES)
    want = teacher(x).tokens
    FrozenTeachers({'mim': teacher}).apply_(lambda t: getattr(t, cast)())
    block = teacher.encoder.vit.layers[0]
    assert block.attn.qkv.weight.dtype == getattr(torch, dtype)
    assert block.ln1.weight.dtype == teacher.scale.dtype == torch.float32
    error = (teacher(x).tokens - want).norm() / want.norm()
    assert error < (0.03 if cast in ('half', 'bfloat16') else 1e-6)


def test_attention_is_mmpretrains() -> None:
    torch.manual_seed(0)
    for bias in ('qv_bias', True, False):
        own = BEiTAttention(24, 2, None, False, bias=bias).double().eval()
        for parameter in own.parameters():
            torch.nn.init.normal_(parameter)
        x = torch.randn(2, 5, 24, dtype=torch.double)
        for shape in (None, (2, 5, 5), (2, 2, 5, 5)):
            positions = None if shape is None else torch.randn(shape, dtype=torch.double)
            got = FusedBEiTAttention(own)(x, positions)
            torch.testing.assert_close(got, own(x, positions), rtol=1e-10, atol=1e-10)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    path = weights('mae', tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match="dtype='int8' is unknown; choose one of 'bfloat16'"):
        MIMTeacher(checkpoint=path, dtype='int8', **SIZES)
