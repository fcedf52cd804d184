"""On a CUDA device: the same numbers as on the CPU, and nothing that waits for the device.

Needs torch and timm only, so that it runs where the OpenMMLab packages are not installed.
"""

import copy
from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, sparsify

pytestmark = pytest.mark.gpu
ENGINES = ('tiles', 'masked_dense')
NETWORKS = (
    'resnet18',
    'resnet26d',
    'seresnext26d_32x4d',
    'mobilenetv2_050',
    'efficientnet_b0',
    'convnext_atto',
    'convnextv2_atto',
)


def visible(equal: bool) -> Tensor:
    """(3, 2, 3) bool, with three visible cells in each image, or one, three and four."""
    counts = (3, 3, 3) if equal else (1, 3, 4)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(3, 6, generator=generator).argsort(1)
    return (order < torch.tensor(counts).view(3, 1)).view(3, 2, 3)


def run(network: nn.Module, x: Tensor, mask: CellMask, engine: str) -> list[Tensor]:
    """Outputs, gradients and running statistics, on the CPU."""
    x = x.clone().requires_grad_()
    maps = network(sparsify(x, mask, engine))
    sum((i + 1) * m.rows.square().mean() for i, m in enumerate(maps)).backward()
    out = [m.rows for m in maps] + [x.grad]
    out += [p.grad for p in network.parameters()] + list(network.buffers())
    return [tensor.detach().cpu() for tensor in out]


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('equal', [True, False])
@pytest.mark.parametrize('name', NETWORKS)
def test_equals_the_cpu(name: str, equal: bool, engine: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True).double().train()
    x = torch.randn(3, 3, 64, 96, dtype=torch.double)
    mask = CellMask(visible(equal))
    want = run(copy.deepcopy(network), x, mask, engine)
    got = run(network.cuda(), x.cuda(), mask.to('cuda'), engine)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * max(1.0, b.abs().max().item()))


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    """Any read of a value on the device raises."""
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('name', NETWORKS)
def test_a_step_never_waits_for_the_device(name: str, request: pytest.FixtureRequest) -> None:
    network = timm.create_model(name, features_only=True).cuda().train()
    x = torch.randn(4, 3, 64, 96, device='cuda')

    def step() -> None:
        mask = CellMask.random(batch=4, grid=(2, 3), mask_ratio=0.5, device='cuda')
        with torch.autocast('cuda', dtype=torch.bfloat16):
            maps = network(sparsify(x, mask))
        sum(m.rows.float().sum() for m in maps).backward()

    step()  # what is set up once, cuDNN's handles say, may wait
    request.getfixturevalue('waiting_is_an_error')
    step()
