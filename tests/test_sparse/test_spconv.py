"""engine='spconv': which packages it accepts, and its numbers on CPU tensors."""

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
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
from torch import Tensor, nn

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
NETWORKS = (
    'mmpretrain/resnet18',
    'mmpretrain/resnet18-dilated',
    'mmpretrain/resnet50',
    'mmpretrain/vgg11-bn',
    'timm/resnet26d',
)
GEOMETRIES = [
    # tile, kernel, stride, padding, dilation
    *(
        (t, k, s, d * (k - 1) // 2, d)
        for t, k, s, d in itertools.product((1, 2, 3, 4, 8), (1, 3, 5, 7), (1, 2), (1, 2))
        if t % s == 0 and (k > 1 or d == 1)
    ),
    (4, 2, 2, 0, 1),
    (8, 4, 4, 0, 1),
    (4, 4, 2, 1, 1),
    (4, (1, 3), 1, (0, 1), 1),
    (4, (1, 3), (1, 2), (0, 1), 1),
    (4, (5, 3), 1, (2, 1), 1),
    (4, 2, 1, 'same', 1),
    (4, 4, 1, 'same', 1),
    (2, 3, 1, 'same', 3),
]


@pytest.mark.parametrize(
    'names', [['cumm-cu120', 'spconv-cu120'], ['spconv-cu118'], ['cumm', 'spconv-cu120']]
)
def test_wheels_made_for_cuda_are_accepted(names: list[str]) -> None:
    check_wheels(names)


@pytest.mark.parametrize('names', [[], ['cumm-cu120'], ['spconv-nightly']])
def test_a_missing_package_is_named_with_the_way_to_get_it(names: list[str]) -> None:
    with pytest.raises(ImportError, match=rf'{INSTALL}.*model\.engine'):
        check_wheels(names)


@pytest.mark.parametrize('names', [['cumm', 'spconv'], ['cumm-cu120', 'spconv', 'spconv-cu120']])
def test_the_wheel_for_cpus_is_refused_by_name(names: list[str]) -> None:
    with pytest.raises(ImportError, match=rf'{" ".join(names)}.*{INSTALL}.*model\.engine'):
        check_wheels(names)


def test_wheels_are_found_however_their_name_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('spconv_cu120', 'Cumm.cu120', 'spconvert', 'torch', None)
    found = [SimpleNamespace(name=name) for name in names]
    monkeypatch.setattr(metadata, 'distributions', lambda: found)
    assert installed_wheels() == ['cumm-cu120', 'spconv-cu120']


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the engine finds, in place of those of this environment."""
    names: list[str] = []
    monkeypatch.setattr('hgkd_mm.sparse.spconv.installed_wheels', lambda: names)
    load_ops.cache_clear()
    return names


@pytest.mark.parametrize('names', [[], ['spconv']])
def test_a_wrong_package_is_refused_before_any_work(installed: list[str], names: list[str]) -> None:
    installed += names
    with pytest.raises(ImportError, match=INSTALL):
        find_engine('spconv')
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


def test_the_error_for_an_unknown_engine_names_all_of_them() -> None:
    with pytest.raises(ValueError, match="'tile'.*'tiles', 'masked_dense', 'spconv'"):
        find_engine('tile')


def test_spconv_is_imported_only_when_asked_for() -> None:
    code = "import sys, hgkd_mm.models, hgkd_mm.sparse; sys.exit('spconv' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts back the number of threads that the test changes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_spconv
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_a_convolution_is_the_dense_one(geometry: tuple, bias: bool) -> None:
    tile, kernel, stride, padding, dilation = geometry
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, stride, padding, dilation, bias=bias, dtype=torch.double)
    compare('spconv', tile, conv, params=tuple(conv.parameters()))


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
def test_uneven_padding_and_weights_that_are_channels_last() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, 2, dtype=torch.double).to(memory_format=torch.channels_last)
    op = nn.Sequential(nn.ZeroPad2d((0, 1, 1, 0)), conv)
    compare('spconv', 4, op, params=tuple(conv.parameters()))


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
def test_outputs_are_those_of_visible_cells_where_spconv_alone_has_more() -> None:
    import spconv.pytorch as theirs

    mask, x = dense_input(8)
    rows = sparsify(x, mask, 'spconv').rows
    height, width = x.shape[-2:]
    at = mask.positions((8, 8))
    image, row = at // (height * width), at // width % height
    places = torch.stack([image, row, at % width], 1).int()
    conv = nn.Conv2d(4, 6, 3, 2, 1, bias=False, dtype=torch.double)
    layer = theirs.SparseConv2d(4, 6, 3, 2, 1, bias=False, algo=theirs.ConvAlgo.Native).double()
    layer.weight.data.copy_(conv.weight.permute(0, 2, 3, 1))
    alone = layer(theirs.SparseConvTensor(rows, places, [height, width], len(x)))
    ours = conv(sparsify(x, mask, 'spconv'))
    assert len(ours.rows) == mask.num_visible * 4 * 4 < len(alone.features)
    dense = torch.zeros(3, 12, 16, 6, dtype=torch.double)
    dense[tuple(alone.indices.long().t())] = alone.features
    want = dense * mask.at((12, 16))[..., None]
    torch.testing.assert_close(ours.to_dense(), want.permute(0, 3, 1, 2))


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
@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_in_float32(name: str) -> None:
    """Within 1e-4 of the norm of all outputs, all gradients and all running statistics.

    Against the reference in float64: what separates the two is float32 itself.
    """
    got = _training_step(name, 'spconv', torch.float)
    want = _training_step(name, 'masked_dense', torch.double)
    for one, other in zip(got, want, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()


def _training_step(name: str, engine: str, dtype: torch.dtype) -> list[Tensor]:
    """Outputs, gradients and buffers, each kind as one vector in float64."""
    network = _smooth(build(name)).to(dtype)
    torch.manual_seed(1)
    x = torch.randn(3, 3, 64, 96, dtype=torch.double).to(dtype).requires_grad_()
    maps = network(sparsify(x, CellMask(VISIBLE), engine))
    outs = [m.to_dense() for m in maps]
    sum((o * torch.randn(o.shape, dtype=torch.double).to(dtype)).sum() for o in outs).backward()
    grads = [x.grad, *(p.grad for p in network.parameters() if p.grad is not None)]
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    return [torch.cat([t.detach().flatten().double() for t in k]) for k in (outs, grads, buffers)]


def _smooth(network: nn.Module) -> nn.Module:
    """With SiLU for ReLU, at whose kink rounding alone can change gradients by a percent."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    return network


@needs_spconv
def test_two_threads_give_the_same_as_one(threads: None) -> None:
    results = []
    for count in (1, 2):
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


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _refuses(layer: nn.Module, x: Tensor, words: str = r'model\.engine') -> None:
    mask = CellMask.full(batch=1, grid=(2, 2))
    with pytest.raises(UnsupportedOpError, match=rf"conv2d in layer 'layer' \(Conv2d\).*{words}"):
        Net(layer)(sparsify(x, mask, 'spconv'))


@needs_spconv
@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(8, 8, 3, 1, 1, groups=2),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(8, 8, 7, 1, 3, groups=8),
    ],
    ids=['3x3', '1x1', 'depthwise'],
)
def test_groups_are_refused(layer: nn.Module) -> None:
    _refuses(layer, torch.zeros(1, 8, 8, 8))


@needs_spconv
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kernel', [1, 3])
def test_half_types_are_refused(kernel: int, dtype: torch.dtype) -> None:
    """float16 on CPU too: there spconv would add up the taps in it."""
    layer = nn.Conv2d(8, 8, kernel, 1, kernel // 2)
    words = rf'{re.escape(str(dtype))} on cpu.*float32.*float64.*model\.engine'
    _refuses(layer.to(dtype), torch.zeros(1, 8, 8, 8, dtype=dtype), words)


@needs_spconv
@pytest.mark.parametrize('kernel', [1, 3])
def test_autocast_to_bfloat16_is_refused(kernel: int) -> None:
    layer = nn.Conv2d(8, 8, kernel, 1, kernel // 2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        _refuses(layer, torch.zeros(1, 8, 8, 8), r'bfloat16 on cpu.*model\.engine')


@needs_spconv
def test_autocast_leaves_float64_alone() -> None:
    mask, x = dense_input(4)
    conv = nn.Conv2d(4, 6, 3, 1, 1, dtype=torch.double)
    want = conv(sparsify(x, mask, 'spconv'))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = conv(sparsify(x, mask, 'spconv'))
    assert torch.equal(got.rows, want.rows)


@needs_spconv
def test_a_weight_of_another_type_is_refused() -> None:
    x = torch.zeros(1, 8, 8, 8, dtype=torch.double)
    _refuses(nn.Conv2d(8, 8, 3, 1, 1), x, r'torch\.float32.*torch\.float64')


@needs_spconv
def test_hgkd_learns_with_it() -> None:
    """Same losses and same gradients as with the reference engine, and a step of SGD."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 96, dtype=torch.double)
    mask = CellMask(VISIBLE[:2])
    found = {}
    for engine in ('spconv', 'masked_dense'):
        torch.manual_seed(0)
        model = MODELS.build(
            dict(
                type='HGKD',
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    stem_channels=8,
                    base_channels=8,
                    out_indices=(0, 1, 2, 3),
                ),
                neck=dict(type='UNetDecoder', in_channels=(8, 16, 32, 64), width=32, out_stride=1),
                heads=dict(pixels=dict(type='PixelReconstructionHead', in_channels=1)),
                engine=engine,
            )
        ).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loss, _ = model.parse_losses(model.loss(images, mask=mask))
        loss.backward()
        grads = [p.grad.clone() for p in model.backbone.parameters()]
        optimizer.step()
        after, _ = model.parse_losses(model.loss(images, mask=mask))
        assert after < loss
        found[engine] = [loss.detach(), after.detach(), *grads]
    for one, other in zip(*found.values(), strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()
