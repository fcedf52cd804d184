"""Widths follow from backbone, neck and teachers; a seed gives the same weights either way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_hgkd import FEAT, PIXEL, SIM, hgkd, mae_file, mae_teacher
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.models.outputs import StudentOutput
from hgkd_mm.models.student import Student

RELATION = dict(type='TokenRelationHead', teacher='mim', teacher_layers=[1])
NECK = dict(type='UNetDecoder', width=32)
# As configs of version 0.1 give them.
TYPED = dict(
    feat=FEAT | dict(in_channels=16, embed_dim=24),
    sim=SIM | dict(in_channels=64, embed_dim=24),
    pixel=PIXEL | dict(in_channels=16, out_stride=16),
    relation=RELATION | dict(in_channels=16, embed_dim=24),
)
DERIVED = dict(feat=FEAT, sim=SIM, pixel=PIXEL, relation=RELATION)


@pytest.fixture
def teachers(tmp_path: Path) -> dict:
    return dict(mim=mae_teacher(mae_file(tmp_path)))


def weights(config: dict) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model.state_dict()


def test_what_is_typed_and_what_is_derived_is_the_same_model(teachers: dict) -> None:
    derived = weights(hgkd(teachers=teachers, heads=DERIVED))
    typed = weights(
        hgkd(teachers=teachers, heads=TYPED, neck=NECK | dict(in_channels=[8, 16, 32, 64]))
    )
    assert list(typed) == list(derived)
    assert all(torch.equal(typed[name], derived[name]) for name in typed)


def test_deriving_draws_no_random_number(teachers: dict) -> None:
    """Initial weights are those of heads, backbone and neck built one after the other."""
    config = hgkd(teachers=teachers, heads=DERIVED)
    torch.manual_seed(0)
    model = MODELS.build(config)
    torch.manual_seed(0)
    heads = [MODELS.build(head) for head in TYPED.values()]
    backbone = MODELS.build(config['backbone'])
    neck = MODELS.build(config['neck'] | dict(in_channels=(8, 16, 32, 64)))
    for ours, theirs in ((model.heads, heads), (model.backbone, backbone), (model.neck, neck)):
        theirs = nn.ModuleList(theirs) if isinstance(theirs, list) else theirs
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ('name', 'key', 'value', 'derived'),
    [
        ('feat', 'in_channels', 32, 16),
        ('sim', 'embed_dim', 768, 24),
        ('pixel', 'out_stride', 8, 16),
        ('relation', 'in_channels', 32, 16),
    ],
)
def test_other_widths_are_refused(
    teachers: dict, name: str, key: str, value: int, derived: int
) -> None:
    heads = DERIVED | {name: DERIVED[name] | {key: value}}
    with pytest.raises(ValueError, match=rf'model\.heads\.{name}\.{key} is {value}\b.* {derived}'):
        MODELS.build(hgkd(teachers=teachers, heads=heads))


def test_a_neck_of_other_maps_is_refused(teachers: dict) -> None:
    neck = NECK | dict(in_channels=(8, 16, 32, 99))
    with pytest.raises(ValueError, match=r'model\.neck\.in_channels .*99.* \(8, 16, 32, 64\)'):
        MODELS.build(hgkd(teachers=teachers, heads=DERIVED, neck=neck))


def test_a_backbone_may_be_a_module(teachers: dict) -> None:
    backbone = MODELS.build(hgkd()['backbone'])
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = MODELS.build(hgkd(backbone=backbone, heads=DERIVED, teachers=teachers))
    assert model.backbone is backbone and all(m.training for m in backbone.modules())
    assert all(torch.equal(v, before[n]) for n, v in backbone.state_dict().items())


def test_the_width_of_a_cnns_relations_is_free(teachers: dict) -> None:
    heads = dict(relation=RELATION | dict(embed_dim=40))
    model = MODELS.build(hgkd(teachers=teachers, heads=heads))
    assert model.heads['relation'].projections[0].weight.shape[:2] == (120, 16)


def test_the_decoder_of_a_teacher_makes_its_tokens(tmp_path: Path) -> None:
    teacher = mae_teacher(mae_file(tmp_path), teacher_view='mim')
    model = MODELS.build(hgkd(teachers=dict(mim=teacher), heads=dict(feat=FEAT, sim=SIM)))
    assert (model.heads['feat'].embed_dim, model.heads['sim'].embed_dim) == (16, 24)


class ReadsValues(nn.Module):
    """Reads the value of a tensor while it is built, as ConvNeXt does."""

    def __init__(self) -> None:
        super().__init__()
        width = int(torch.linspace(0, 8, 3)[-1].item())
        self.conv = nn.Conv2d(3, width, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_networks_that_the_meta_device_cannot_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS.module_dict, 'ReadsValues', ReadsValues)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    neck = NECK | dict(stride=4, out_stride=2)
    student = Student(dict(type='ReadsValues'), neck, output=StudentOutput)
    assert student.channels == (8,)
    assert student.neck.out_channels == 16
    assert torch.equal(torch.get_rng_state(), state)


def test_a_head_without_its_teacher_is_refused(teachers: dict) -> None:
    head = {key: value for key, value in FEAT.items() if key != 'teacher'}
    with pytest.raises(ValueError, match='model.heads.feat.teacher'):
        MODELS.build(hgkd(teachers=teachers, heads=dict(feat=head)))
