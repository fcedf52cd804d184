"""UNetDecoder against mmpretrain's SparK decoder and hand-made densification."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.models import UNetDecoder
from hgkd_mm.sparse import CellMask, sparsify

CHANNELS = (4, 6, 8, 16)


@pytest.fixture
def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, c, 16 // 2**i, 24 // 2**i, generator=generator, dtype=torch.double)
        for i, c in enumerate(CHANNELS)
    ]


@pytest.fixture
def mask() -> CellMask:
    generator = torch.Generator().manual_seed(2)
    return CellMask.random(batch=2, grid=(2, 3), mask_ratio=0.5, generator=generator)


def build(**kwargs: object) -> UNetDecoder:
    torch.manual_seed(0)
    settings = dict(in_channels=CHANNELS, width=32) | kwargs
    neck = MODELS.build(dict(type='UNetDecoder', **settings))
    neck.init_weights()
    return neck.double()


def densified(neck: UNetDecoder, maps: list[Tensor], mask: CellMask) -> list[Tensor]:
    """Coarse to fine: batch norm over visible positions and mask token, position by position."""
    out = []
    for level, x in zip(neck.densify, maps[::-1], strict=False):
        visible = mask.at(tuple(x.shape[2:]))
        rows = x.permute(0, 2, 3, 1)[visible]
        rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
        full = level.mask_token.view(1, 1, 1, -1).repeat(*visible.shape, 1)
        full[visible] = rows
        out.append(level.project(full.permute(0, 3, 1, 2)))
    return out


def spark_decoder(neck: UNetDecoder, ratio: int) -> nn.Module:
    """mmpretrain's decoder with the same weights; its last 1x1 convolution removed."""
    decoder = MODELS.build(
        dict(
            type='SparKLightDecoder',
            feature_dim=32,
            upsample_ratio=ratio,
            norm_cfg=dict(type='BN'),
            last_act=False,
        )
    ).double()
    decoder.proj = nn.Identity()
    ours = [p for block in neck.up_blocks for p in block.parameters()]
    theirs = [p for block in decoder.decoder for p in block.parameters()]
    for target, source in zip(theirs, ours, strict=True):
        target.data.copy_(source.data)
    return decoder


@pytest.mark.parametrize('engine', ['tiles', 'masked_dense'])
def test_equals_mmpretrains_spark_decoder_at_full_resolution(
    maps: list[Tensor], mask: CellMask, engine: str
) -> None:
    neck = build(out_stride=1)
    sparse = [sparsify(x, mask, engine=engine) for x in maps]
    expected = spark_decoder(neck, 32)(densified(neck, maps, mask))
    out = neck(sparse)
    assert out.shape == (2, 1, 64, 96)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(('out_stride', 'levels'), [(16, 2), (4, 4), (2, 4)])
def test_stops_early_with_the_last_skip_added(
    maps: list[Tensor], mask: CellMask, out_stride: int, levels: int
) -> None:
    neck = build(out_stride=out_stride)
    assert len(neck.densify) == levels
    skips = densified(neck, maps, mask)
    expected = spark_decoder(neck, 32 // out_stride)(skips)
    if levels == len(neck.up_blocks) + 1:
        expected = expected + skips[-1]
    out = neck([sparsify(x, mask) for x in maps])
    assert out.shape == (2, neck.out_channels, 64 // out_stride, 96 // out_stride)
    assert neck.out_channels == 32 * out_stride // 32
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('out_stride', [32, 8, 1])
def test_has_no_parameter_without_gradient(
    maps: list[Tensor], mask: CellMask, out_stride: int
) -> None:
    neck = build(out_stride=out_stride)
    neck([sparsify(x, mask) for x in maps]).square().sum().backward()
    assert [n for n, p in neck.named_parameters() if p.grad is None] == []
    tokens = [level.mask_token.grad.abs().sum() for level in neck.densify]
    assert all(total > 0 for total in tokens)


def test_has_the_published_number_of_parameters() -> None:
    # docs/sources.md 3.2: R50 at width 512: densify 4.16 M, decoder 10.30 M with the last 1x1.
    neck = UNetDecoder(in_channels=(256, 512, 1024, 2048), width=512, out_stride=1)
    count = {
        name: sum(p.numel() for p in getattr(neck, name).parameters())
        for name in ('densify', 'up_blocks')
    }
    last = 16 * 3 + 3
    assert round(count['densify'] / 1e6, 2) == 4.16
    assert round((count['up_blocks'] + last) / 1e6, 2) == 10.30


def test_dense_maps_are_all_visible(maps: list[Tensor]) -> None:
    neck = build(out_stride=8)
    everything = CellMask.full(batch=2, grid=(2, 3))
    torch.testing.assert_close(
        neck(maps), neck([sparsify(x, everything) for x in maps]), rtol=1e-9, atol=1e-9
    )


def test_initialisation() -> None:
    neck = build(in_channels=(64, 128, 256, 512), width=256, out_stride=8)
    conv = neck.densify[1].project.weight
    assert conv.std().item() == pytest.approx(0.02, rel=0.05)
    assert neck.densify[1].project.bias.abs().max() == 0
    up = neck.up_blocks[0][0].weight
    # Kaiming fan-out in PyTorch's layout of a transposed convolution: dim 0 times k^2.
    assert up.std().item() == pytest.approx((2 / (256 * 16)) ** 0.5, rel=0.05)
    token = neck.densify[0].mask_token
    assert 0 < token.abs().max() <= 0.02
    assert isinstance(build(width=16).densify[0].project, nn.Identity)
    assert isinstance(build(width=32).densify[0].project, nn.Conv2d)


def test_mask_token_follows_half_precision(mask: CellMask) -> None:
    neck = UNetDecoder(in_channels=CHANNELS, width=32, out_stride=16)
    maps = [torch.randn(2, c, 16 // 2**i, 24 // 2**i) for i, c in enumerate(CHANNELS)]
    with torch.autocast('cpu', torch.bfloat16):
        out = neck([sparsify(x.bfloat16(), mask) for x in maps])
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(out_stride=3), r'neck\.out_stride must be a power of two.*got 3'),
        (dict(stride=24), r'neck\.stride must be a power of two.*got 24'),
        (dict(out_stride=64), r'neck\.out_stride 64 is coarser'),
        (dict(width=24, out_stride=1), r'neck\.width 24 must divide by 32'),
    ],
)
def test_refuses_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetDecoder(**(dict(in_channels=CHANNELS, width=32) | settings))


def test_refuses_other_maps(maps: list[Tensor]) -> None:
    maps[2] = maps[2][:, :, :3]
    with pytest.raises(ValueError, match='twice as large'):
        build()(maps)
