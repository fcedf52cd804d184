"""engine='spconv': which packages it accepts, and its numbers on CPU tensors."""

import itertools
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import compare, dense_input
from helpers.networks import build
from helpers.sparse_reference import relative_error, run
from mmpretrain.registry import MODELS
from torch import nn

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.sparse import CellMask, SparseFeatureMap, UnsupportedOpError, find_engine, sparsify
from hgkd_mm.sparse.spconv import check_wheels, installed_wheels, load_ops

ROOT = Path(__file__).parents[2]
INSTALL = r'spconv-cu120==2\.3\.6 cumm-cu120==0\.4\.11'
needs_spconv = pytest.mark.skipif(
    not any(name.startswith('spconv') for name in installed_wheels()),
    reason='needs the package spconv-cu120, which is not installed',
)

VISIBLE = torch.tensor(
    [[[1, 0, 0], [1, 1, 0]], [[0, 0, 1], [0, 1, 0]], [[1, 1, 1], [0, 0, 1]]], dtype=torch.bool
)
NETWORKS = ('mmpretrain/resnet18-dilated', 'mmpretrain/vgg11-bn', 'timm/resnet26d')
GEOMETRIES = [
    # tile, kernel, stride, padding, dilation
    *(
        (t, k, s, d * (k - 1) // 2, d)
        for t, k, s, d in itertools.product((1, 2, 3, 8), (1, 3, 7), (1, 2), (1, 2))
        if t % s == 0 and (k > 1 or d == 1)
    ),
    (4, 2, 2, 0, 1),
    (8, 4, 4, 0, 1),
    (4, 4, 2, 1, 1),
    (4, (1, 3), (1, 2), (0, 1), 1),
    (4, (5, 3), 1, (2, 1), 1),
    (4, 4, 1, 'same', 1),
    (2, 3, 1, 'same', 3),
]


@pytest.mark.parametrize(
    'names', [['cumm-cu120', 'spconv-cu120'], ['spconv-cu118'], ['cumm', 'spconv-cu120']]
)
def test_wheels_made_for_cuda_are_accepted(names: list[str]) -> None:
    check_wheels(names)


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        *((names, '') for names in ([], ['cumm-cu120'], ['spconv-nightly'])),
        # The wheel for CPUs.
        (['cumm', 'spconv'], 'cumm spconv.*'),
        (['cumm-cu120', 'spconv', 'spconv-cu120'], 'cumm-cu120 spconv spconv-cu120.*'),
    ],
)
def test_other_wheels_are_refused_with_the_way_to_get_the_right_ones(
    names: list[str], words: str
) -> None:
    with pytest.raises(ImportError, match=rf'{words}{INSTALL}.*model\.engine'):
        check_wheels(names)


def test_wheels_are_found_however_their_name_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('spconv_cu120', 'Cumm.cu120', 'spconvert', 'torch', None)
    found = [SimpleNamespace(name=name) for name in names]
    monkeypatch.setattr(metadata, 'distributions', lambda: found)
    assert installed_wheels() == ['cumm-cu120', 'spconv-cu120']


@pytest.mark.parametrize('names', [[], ['spconv']])
def test_a_wrong_package_is_refused_before_any_work(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('hgkd_mm.sparse.spconv.installed_wheels', lambda: names)
    load_ops.cache_clear()
    mask = CellMask.full(batch=1, grid=(1, 1))
    with pytest.raises(ImportError, match=INSTALL):
        sparsify(torch.zeros(1, 3, 4, 4), mask, engine='spconv')
    config = dict(
        type='HGKD',
        backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
        neck=dict(type='UNetDecoder', in_channels=(64, 128, 256, 512), width=64),
        heads=dict(pixel=dict(type='PixelReconstructionHead', in_channels=32, out_stride=16)),
        engine='spconv',
    )
    with pytest.raises(ImportError, match=INSTALL):
        MODELS.build(config)


def test_spconv_is_imported_only_when_asked_for() -> None:
    code = "import sys, hgkd_mm.sparse; sys.exit('spconv' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0


@needs_spconv
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_a_convolution_is_the_dense_one(geometry: tuple, bias: bool) -> None:
    tile, kernel, stride, padding, dilation = geometry
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, stride, padding, dilation, bias=bias, dtype=torch.double)
    compare('spconv', tile, conv, params=tuple(conv.parameters()))


@needs_spconv
def test_uneven_padding_and_weights_that_are_channels_last() -> None:
    conv = nn.Conv2d(4, 6, 3, 2, dtype=torch.double).to(memory_format=torch.channels_last)
    op = nn.Sequential(nn.ZeroPad2d((0, 1, 1, 0)), conv)
    compare('spconv', 4, op, params=tuple(op.parameters()))


@needs_spconv
def test_a_window_that_reads_nothing_visible() -> None:
    mask = CellMask(torch.tensor([[[True, False], [False, False]]]))
    x = torch.randn(1, 4, 16, 16, dtype=torch.double, requires_grad=True)
    conv = nn.Conv2d(4, 6, 2, 8, 8, 16, dtype=torch.double)
    rows = conv(sparsify(x, mask, 'spconv')).rows
    torch.testing.assert_close(rows, conv.bias.expand(1, 6))
    rows.sum().backward()
    assert not x.grad.any() and not conv.weight.grad.any()


@needs_spconv
@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_is_that_of_the_reference_engine(name: str) -> None:
    results = {}
    for engine in ('spconv', 'masked_dense'):
        torch.manual_seed(1)
        x = torch.randn(3, 3, 64, 96, dtype=torch.double, requires_grad=True)
        results[engine] = run(build(name), x, sparsify(x, CellMask(VISIBLE), engine))
    assert results['spconv']['buffers']  # running statistics of the norms
    for kind, error in relative_error(results['spconv'], results['masked_dense']).items():
        assert error < 1e-9, (kind, error)


@needs_spconv
def test_a_convolution_in_float32() -> None:
    mask, x = dense_input(4)
    results = {}
    for dtype in (torch.double, torch.float):
        torch.manual_seed(0)
        conv = nn.Conv2d(4, 6, 3, 2, 1, dtype=torch.double).to(dtype)
        leaf = x.to(dtype).requires_grad_()
        out = conv(sparsify(leaf, mask, 'spconv')).to_dense()
        assert out.dtype == dtype
        grads = torch.autograd.grad(out.square().sum(), [leaf, *conv.parameters()])
        results[dtype] = [out, *grads]
    for one, other in zip(results[torch.float], results[torch.double], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@needs_spconv
def test_two_threads_give_the_same_as_one() -> None:
    results = []
    for count in (1, 2):  # two is what conftest.py sets
        torch.set_num_threads(count)
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1)
        ).double()
        x = torch.randn(4, 8, 96, 96, dtype=torch.double, requires_grad=True)
        mask = CellMask.full(batch=4, grid=(3, 3))
        results.append(run(network, x, sparsify(x, mask, 'spconv')))
    for kind, error in relative_error(*results).items():
        assert error < 1e-12, (kind, error)


@needs_spconv
def test_every_op_stays_on_the_engine() -> None:
    mask, x = dense_input(4)
    engine = find_engine('spconv')
    y = sparsify(x, mask, 'spconv')
    for op in (
        nn.Conv2d(4, 2, 1, dtype=torch.double),
        nn.Conv2d(4, 2, 1, 2, dtype=torch.double),
        nn.Conv2d(4, 2, 3, 2, 1, dtype=torch.double),
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2, 2),
        nn.BatchNorm2d(4, dtype=torch.double),
        nn.GroupNorm(2, 4, dtype=torch.double),
        nn.Upsample(scale_factor=2),
        F.relu,
        lambda m: m + m,
        lambda m: torch.cat([m, m], 1),
        lambda m: torch.chunk(m, 2, 1)[1],
    ):
        out = op(y)
        assert type(out) is engine and out.engine == 'spconv', op
    assert isinstance(y, SparseFeatureMap) and "engine='spconv'" in repr(y)


BOTH = r'float32.*float64.*model\.engine'


@needs_spconv
@pytest.mark.parametrize(
    ('layer', 'dtype', 'words'),
    [
        *(
            (nn.Conv2d(8, 8, k, 1, k // 2, groups=g), torch.float, r'model\.engine')
            for k, g in ((3, 2), (1, 2), (7, 8))
        ),
        # float16 on CPU too: there spconv would add up the taps in it.
        *(
            (nn.Conv2d(8, 8, k, 1, k // 2, dtype=t), t, rf'{re.escape(str(t))} on cpu.*{BOTH}')
            for k, t in itertools.product((1, 3), (torch.bfloat16, torch.float16))
        ),
        (nn.Conv2d(8, 8, 3, 1, 1), torch.double, r'torch\.float32.*torch\.float64'),
    ],
    ids=str,
)
def test_what_spconv_cannot_compute_is_refused(layer, dtype: torch.dtype, words: str) -> None:
    x, mask = torch.zeros(1, 8, 8, 8, dtype=dtype), CellMask.full(batch=1, grid=(2, 2))
    with pytest.raises(UnsupportedOpError, match=rf"conv2d in layer '0' \(Conv2d\).*{words}"):
        nn.Sequential(layer)(sparsify(x, mask, 'spconv'))


@needs_spconv
def test_autocast_to_bfloat16_is_refused_and_leaves_float64_alone() -> None:
    mask, x = dense_input(4)
    conv = nn.Conv2d(4, 6, 3, 1, 1, dtype=torch.double)
    want = conv(sparsify(x, mask, 'spconv'))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = conv(sparsify(x, mask, 'spconv'))
        with pytest.raises(UnsupportedOpError, match=r'bfloat16 on cpu.*model\.engine'):
            conv.float()(sparsify(x.float(), mask, 'spconv'))
    assert torch.equal(got.rows, want.rows)
