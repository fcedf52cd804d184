"""The H-GKD algorithm: wiring, modes, refusals, and SparK as its special case."""

from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.models import HGKD, TeacherOutput
from hgkd_mm.models.teachers.base import BaseTeacher
from hgkd_mm.sparse import CellMask

SMALL = dict(depth=18, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
BACKBONE = dict(type='ResNet', **SMALL)
SIM = dict(type='SimilarityDistributionHead', teacher='mim', queue_size=8)
FEAT = dict(type='FeatureImitationHead', teacher='mim')


class PatchTeacher(BaseTeacher):
    """A 16 x 16 patch embedding that counts how often it is asked."""

    def __init__(self, embed_dim: int = 5) -> None:
        super().__init__(
            patch_size=16,
            embed_dim=embed_dim,
            embedding_dim=embed_dim,
            teacher_view='full',
            mean=(0, 0, 0),
            std=(1, 1, 1),
        )
        self.conv = nn.Conv2d(3, embed_dim, 16, 16)
        self.seen: list[Tensor] = []

    def infer(self, images: Tensor, grid: tuple, visible: Tensor | None) -> TeacherOutput:
        self.seen.append(images)
        tokens = self.conv(images).flatten(2).transpose(1, 2)
        return self.output(tokens, tokens.mean(1), grid)


def build(**kwargs: Any) -> HGKD:
    torch.manual_seed(0)
    settings = dict(
        type='HGKD',
        backbone=BACKBONE,
        neck=dict(type='UNetDecoder', width=32),
        teachers=dict(mim=PatchTeacher()),
        heads=dict(feat=FEAT, sim=SIM),
        mask=dict(cell=32, ratio=0.5),
    )
    return MODELS.build(settings | kwargs)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(7))


def test_losses_are_weighted_and_named_after_the_heads(images: Tensor) -> None:
    mask = CellMask.random(batch=2, grid=(2, 3), mask_ratio=0.5)
    model = build(heads=dict(feat=FEAT, again=FEAT | dict(weight=3.0)))
    model.heads['again'].load_state_dict(model.heads['feat'].state_dict())
    losses = model.loss(images, mask=mask)
    assert list(losses) == ['loss_feat', 'loss_again']
    torch.testing.assert_close(losses['loss_again'], 3 * losses['loss_feat'])
    total, log_vars = model.parse_losses(losses)
    torch.testing.assert_close(total, 4 * losses['loss_feat'])
    assert list(log_vars) == ['loss', 'loss_feat', 'loss_again']


def test_each_teacher_runs_once_a_step_and_only_if_wanted(images: Tensor) -> None:
    teachers = dict(mim=PatchTeacher(), other=PatchTeacher(4), idle=dict(type='NoSuchTeacher'))
    other = FEAT | dict(teacher='other')
    model = build(teachers=dict(teachers), heads=dict(feat=FEAT, sim=SIM, other=other))
    losses = model.loss(images)
    assert set(losses) == {'loss_feat', 'loss_sim', 'loss_other'}
    assert [len(teachers[name].seen) for name in ('mim', 'other')] == [1, 1]
    assert set(model.teachers) == {'mim', 'other'}


def test_teacher_stays_outside(images: Tensor) -> None:
    model = build()
    teacher = model.teachers['mim']
    weight = teacher.conv.weight.clone()
    assert not [key for key in model.state_dict() if 'teacher' in key or 'mim' in key]
    ids = {id(p) for p in model.parameters()}
    assert not ids & {id(p) for p in teacher.parameters()}
    model.init_weights()
    model.train()
    model.parse_losses(model.loss(images))[0].backward()
    assert torch.equal(teacher.conv.weight, weight)
    assert teacher.conv.weight.grad is None
    assert not teacher.training
    model.double()
    assert teacher.conv.weight.dtype == torch.double


def test_teacher_converts_from_the_preprocessors_statistics(images: Tensor) -> None:
    mean, std = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
    model = build(data_preprocessor=dict(mean=mean, std=std, to_rgb=True))
    raw = images * 40 + 100
    data = model.data_preprocessor(dict(inputs=raw, data_samples=None), True)
    model.loss(**data)
    # The tiny teacher's own mean 0 and std 1 make its input the RGB image itself.
    torch.testing.assert_close(model.teachers['mim'].seen[0], raw.flip(1), rtol=1e-4, atol=1e-2)


def test_student_never_sees_hidden_pixels(images: Tensor) -> None:
    model = build(heads=dict(feat=FEAT)).eval()
    mask = CellMask(torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 1, 1], [0, 0, 0]]]).bool())
    hidden = (~mask.at((64, 96))).unsqueeze(1)
    answer = model.teachers['mim'](images)
    model.teachers['mim'].infer = lambda *_: answer
    changed = images + 100 * torch.randn_like(images) * hidden
    first, second = (model.loss(x, mask=mask)['loss_feat'] for x in (images, changed))
    assert first.item() == second.item()


def test_tensor_mode_is_the_dense_backbone(images: Tensor) -> None:
    model = build().eval()
    for got, want in zip(model(images), model.backbone(images), strict=True):
        assert torch.equal(got, want)


def test_training_step_of_mmengine_lowers_the_loss(images: Tensor) -> None:
    model = build()
    model.init_weights()
    model.train()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    history = [model.train_step(dict(inputs=images, data_samples=None), wrapper) for _ in range(12)]
    assert set(history[0]) == {'loss', 'loss_feat', 'loss_sim'}
    assert history[0]['loss_sim'] == 0 < history[1]['loss_sim']
    assert history[-1]['loss_feat'] < 0.8 * history[0]['loss_feat']


def test_bfloat16_autocast(images: Tensor) -> None:
    model = build()
    model.loss(images)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(images)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_checkpoint_round_trip_with_the_queue(images: Tensor) -> None:
    mask = CellMask.random(batch=2, grid=(2, 3), mask_ratio=0.5)
    model = build()
    for _ in range(3):
        model.loss(images)
    other = build()
    other.load_state_dict(model.state_dict())
    assert other.heads['sim'].queue.num_stored == 6
    for name, loss in model.eval().loss(images, mask=mask).items():
        assert torch.equal(other.eval().loss(images, mask=mask)[name], loss)


def test_init_weights_reaches_neck_and_heads() -> None:
    model = build()
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.init_weights()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {
        'heads.feat.project.weight',
        'heads.sim.projector.0.weight',
        'neck.densify.1.project.weight',
        'neck.up_blocks.0.0.weight',
        'backbone.conv1.weight',
    } <= changed
    assert model.heads['feat'].project.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_stops_before_the_step_when_a_loss_is_not_finite(images: Tensor) -> None:
    model = build()
    model.heads['feat'].project.bias.data.fill_(float('nan'))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.backbone.conv1.weight.clone()
    with pytest.raises(RuntimeError, match=r'^loss_feat is not finite .*optim_wrapper'):
        model.train_step(dict(inputs=images, data_samples=None), wrapper)
    assert torch.equal(model.backbone.conv1.weight, before)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(heads={}), 'no head'),
        (dict(heads=dict(feat=None)), 'no head'),
        (dict(teachers={}), r"model\.heads\.feat names teacher 'mim'.*has none"),
        (dict(teachers=dict(mae=PatchTeacher())), r"names teacher 'mim'.*\['mae'\]"),
        (dict(neck=None), r'model\.heads\.feat .*neck'),
        (dict(mask=dict(cell=0)), r'model\.mask .* got cell=0'),
        (dict(mask=dict(ratio=1.0)), r'model\.mask .* ratio=1.0'),
        (dict(mask=dict(size=32)), r"model\.mask .* other keys \['size'\]"),
        (dict(engine='tile'), r"model\.engine .*'tiles'.*got 'tile'"),
    ],
)
def test_refuses_bad_configs(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_refuses_images_that_are_no_whole_cells(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r'60 x 96 px do not divide into cells of 32'):
        build().loss(images[:, :, :60])


def build_spark() -> nn.Module:
    """mmpretrain's own SparK on its masked-dense ResNet-18, 96 px, cells of 32 px."""
    norm = dict(type='SparseBatchNorm2d')
    config = dict(
        type='SparK',
        backbone=dict(type='SparseResNet', norm_cfg=norm, **SMALL),
        neck=dict(
            type='SparKLightDecoder',
            feature_dim=32,
            upsample_ratio=32,
            norm_cfg=dict(type='BN'),
            last_act=False,
        ),
        head=dict(
            type='SparKPretrainHead',
            loss=dict(type='PixelReconstructionLoss', criterion='L2'),
            patch_size=32,
        ),
        input_size=96,
        enc_dec_norm_cfg=norm,
        enc_dec_norm_dim=64,
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config).double()


@pytest.mark.parametrize('engine', ['tiles', 'masked_dense'])
def test_pixels_without_a_teacher_is_mmpretrains_spark(engine: str) -> None:
    """Same weights and mask: same loss, same gradient of every parameter."""
    spark = build_spark()
    model = build(
        neck=dict(type='UNetDecoder', width=32, out_stride=1),
        teachers=None,
        heads=dict(pixels=dict(type='PixelReconstructionHead')),
        engine=engine,
    ).double()
    theirs = dict(spark.backbone.named_parameters())
    pairs = [
        *((p, theirs[name]) for name, p in model.backbone.named_parameters()),
        *zip(model.neck.up_blocks.parameters(), spark.neck.decoder.parameters(), strict=True),
        *zip(model.heads.parameters(), spark.neck.proj.parameters(), strict=True),
    ]
    for level, norm, project, token in zip(
        model.neck.densify,
        spark.enc_dec_norms,
        spark.enc_dec_projectors,
        spark.mask_tokens,
        strict=True,
    ):
        pairs += zip(level.norm.parameters(), norm.parameters(), strict=True)
        pairs += zip(level.project.parameters(), project.parameters(), strict=True)
        pairs.append((level.mask_token, token))
    assert len(pairs) == len(list(model.parameters())) == len(list(spark.parameters()))
    for ours, other in pairs:
        ours.data.copy_(other.data)

    images = torch.randn(2, 3, 96, 96).double()
    mask = CellMask.random(batch=2, grid=(3, 3), mask_ratio=0.6)
    spark.mask = lambda *_, **__: mask.visible.unsqueeze(1)
    expected = spark.loss(images.clone(), None)['loss']
    loss = model.loss(images, mask=mask)['loss_pixels']
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    loss.backward()
    expected.backward()
    for ours, other in pairs:
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-7, atol=1e-10)


def test_a_neck_that_no_head_reads_is_not_built(images: Tensor) -> None:
    model = build(heads=dict(sim=SIM))
    assert model.neck is None
    model.loss(images)
    loss = model.loss(images)['loss_sim']
    loss.backward()
    assert loss > 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
