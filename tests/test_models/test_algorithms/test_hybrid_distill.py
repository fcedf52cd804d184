"""Hybrid Distill: wiring, invariants, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.teachers import images, prefixed, randomised, save
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS

from hgkd_mm.models import HybridDistill
from hgkd_mm.models.heads.token_relation import relation_divergence, relation_logits
from hgkd_mm.models.qkv import read_qkv
from hgkd_mm.models.tokens import take

SIZES = dict(
    arch=dict(embed_dims=24, num_layers=6, num_heads=2, feedforward_channels=48),
    img_size=64,
    patch_size=16,
)
STUDENT = dict(type='VisionTransformer', out_type='raw', **SIZES)
FEAT = dict(type='FeatureDistillationHead', teacher='cl')
RELATION = dict(
    type='TokenRelationHead', teacher='mim', student_layers=[2, -1], teacher_layers=[1, 3]
)


@pytest.fixture
def teachers(tmp_path: Path) -> dict[str, dict]:
    """Two teachers with weights of their own; not MAEViT, whose weights lack nothing either."""
    found = {}
    for seed, name in enumerate(('cl', 'mim'), start=1):
        vit = randomised(VisionTransformer(**SIZES), seed)
        path = save(prefixed('backbone.', vit), tmp_path / f'{name}.pth')
        # The images as the student gets them.
        plain = dict(mean=(0, 0, 0), std=(1, 1, 1))
        found[name] = dict(type='MIMTeacher', checkpoint=str(path), family='mae', **plain, **SIZES)
    return found


def build(teachers: dict, **settings: Any) -> HybridDistill:
    torch.manual_seed(0)
    config = dict(
        type='HybridDistill',
        backbone=STUDENT,
        teachers=teachers,
        heads=dict(feat=FEAT, relation=RELATION),
        masking=dict(keep_ratio=0.7),
    )
    return MODELS.build(config | settings).double()


def test_a_step(teachers: dict) -> None:
    model = build(teachers)
    model.init_weights()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not any('teacher' in name for name in before)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    losses = model(images(), mode='loss')
    assert list(losses) == ['loss_feat', 'loss_relation']
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_feat'] + losses['loss_relation'])
    optimizer.update_params(total)
    # Nothing stays behind: DistributedDataParallel wants a gradient for every weight.
    still = [name for name, value in model.state_dict().items() if value.equal(before[name])]
    assert still == []


def test_losses_by_hand_on_the_surviving_tokens(teachers: dict) -> None:
    model = build(teachers)
    model.init_weights()
    x = images()
    student, targets = model.compare(x)
    assert student.tokens.shape == (3, 4, 24)  # of 16 tokens 11, 7 and 4 are left
    losses = model.losses(student, targets)

    cl, mim = model.teachers['cl'].vit, model.teachers['mim'].vit
    with torch.no_grad():
        (final,) = cl(x)
    target = torch.cat([final[:, :1], take(final[:, 1:], student.index)], dim=1)
    target = torch.nn.functional.layer_norm(target, (24,), eps=1e-6)
    ours = torch.cat([student.cls.unsqueeze(1), student.tokens], dim=1)
    error = (model.heads['feat'].project(ours) - target).abs()
    expected = torch.where(error < 2, error**2 / 4, error - 1).mean()
    torch.testing.assert_close(losses['loss_feat'], expected)

    with read_qkv({1: mim.layers[1], 3: mim.layers[3]}) as theirs, torch.no_grad():
        mim(x)
    terms = []
    for ours, layer in ((2, 1), (5, 3)):
        tokens = student.layers[ours]
        for a, b in ('qk', 'vv'):
            own = [getattr(tokens.qkv, name)[:, :, 1:] for name in (a, b)]
            rows = tokens.index[:, None, :, None].expand(-1, 2, -1, 12)
            other = [getattr(theirs[layer], name)[:, :, 1:].gather(2, rows) for name in (a, b)]
            terms.append(relation_divergence(relation_logits(*own, 2), relation_logits(*other, 2)))
    torch.testing.assert_close(losses['loss_relation'], sum(terms) / 2)


@pytest.mark.parametrize('masking', [None, dict(keep_ratio=0.7)])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    teachers: dict, masking: dict | None
) -> None:
    same = [0, 2] if masking is None else [0]
    relation = RELATION | dict(student_layers=same, teacher_layers=same)
    model = build(teachers, masking=masking, heads=dict(relation=relation))
    model.backbone.load_state_dict(model.teachers['mim'].vit.state_dict())
    assert model.loss(images())['loss_relation'].item() == pytest.approx(0, abs=1e-10)


def test_the_student_is_left_as_it_was(teachers: dict) -> None:
    model = build(teachers)
    model.loss(images())
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []
    (features,) = model.extract_feat(images())
    assert features.shape == (3, 24, 4, 4)


def test_images_that_are_not_square(teachers: dict) -> None:
    model = build(teachers)
    assert model.extract_feat(images((32, 96)))[0].shape == (3, 24, 2, 6)
    assert model.loss(images((32, 96)))['loss_relation'].isfinite()


def test_in_half_precision(teachers: dict) -> None:
    model = build(teachers).float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(images().float())
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    # With every token, so that no choice among nearly equal ones counts.
    model.masking = None
    exact = model.loss(images().float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rounded = model.loss(images().float())
    for name, value in exact.items():
        assert rounded[name].item() == pytest.approx(value.item(), rel=0.03)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(backbone=STUDENT | dict(out_type='cls_token')), "out_type='raw'"),
        (dict(backbone=STUDENT | dict(out_indices=[0, 5])), 'out_indices=-1'),
        (dict(masking=dict(after=[7])), 'the student has 6 blocks'),
        (
            dict(heads=dict(feat=dict(type='FeatureImitationHead', teacher='cl'))),
            r"model\.heads\.feat reads 'decoded' .* TransformerOutput",
        ),
        (dict(heads=dict(relation=RELATION | dict(teacher_layers=[1, 6]))), r'names block 6'),
        (dict(backbone=STUDENT | dict(patch_size=8)), 'cover 8 x 8 pixels'),
        (dict(heads=dict(relation=RELATION | dict(num_heads=5))), '5 relation heads do not divide'),
        (dict(backbone=STUDENT | dict(with_cls_token=False)), r'feat\.with_cls=False'),
        (
            dict(
                backbone=STUDENT | dict(with_cls_token=False),
                heads=dict(relation=RELATION | dict(with_cls=True)),
            ),
            r'relation\.with_cls=False',
        ),
        (dict(backbone=dict(type='MAEViT', **SIZES)), 'MAEViT, .* which does not mask images'),
        (dict(backbone=dict(type='ResNet', depth=18)), 'HGKD'),
    ],
)  # fmt: skip
def test_refused_before_training(teachers: dict, settings: dict, sentence: str) -> None:
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises((TypeError, ValueError), match=sentence),
    ):
        build(teachers, **settings)


def test_a_layer_that_the_teacher_does_not_run_is_refused(teachers: dict) -> None:
    teachers['mim']['layer'] = 2
    with pytest.raises(ValueError, match='names block 3, but 3 blocks run'):
        build(teachers)


def test_relations_that_could_not_be_learned_are_refused(teachers: dict) -> None:
    model = build(teachers)
    # As MMEngine's Runner does, with cfg=dict(activation_checkpointing=...).
    turn_on_activation_checkpointing(model, [f'backbone.layers.{i}' for i in range(6)])
    with pytest.raises(RuntimeError, match='leave .*out of activation_checkpointing'):
        model.loss(images())
    model = build(teachers, backbone=STUDENT | dict(frozen_stages=4))
    with pytest.raises(RuntimeError, match=r'blocks \[2\].*out of frozen_stages'):
        model.loss(images())


def test_a_teacher_that_wants_a_mask_is_refused(teachers: dict) -> None:
    teachers['mim']['teacher_view'] = 'visible'
    with pytest.raises(ValueError, match=r"model\.heads\.relation .*teacher_view='visible'"):
        build(teachers)


def test_a_teacher_without_attention_is_refused(tmp_path: Path, teachers: dict) -> None:
    path = save(timm.create_model('resnet10t').state_dict(), tmp_path / 'cnn.pth', key=None)
    teachers['mim'] = dict(type='TIMMTeacher', name='resnet10t', checkpoint=str(path))
    with pytest.raises(ValueError, match="relation reads teacher 'mim': .* no transformer"):
        build(teachers)
