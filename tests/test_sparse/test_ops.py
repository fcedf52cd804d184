"""Functions of single values and channels, and in-place ops: where they write."""

import pytest
import torch
import torch.nn.functional as F
from helpers.maps import ENGINES, compare, dense_input
from torch import Tensor, nn

from hgkd_mm.benchmark import saved_bytes
from hgkd_mm.sparse import CellMask, SparseFeatureMap, sparsify


@pytest.mark.parametrize('engine', ENGINES)
def test_activations_and_arithmetic(engine: str) -> None:
    per_channel = torch.randn(1, 4, 1, 1, dtype=torch.double)
    per_image = torch.randn(3, 4, 1, 1, dtype=torch.double)
    everywhere = torch.randn(3, 4, 12, 16, dtype=torch.double)
    for op in (
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.GELU(),
        nn.SiLU(),
        nn.Hardswish(),
        torch.sigmoid,
        lambda x: x.sigmoid(),
        lambda x: x + 1.5,
        lambda x: 2 - x,
        lambda x: -x,
        lambda x: x.div(0.7) * per_image,
        lambda x: per_channel * x + x,
        lambda x: per_channel - x,
        lambda x: x - everywhere,
        lambda x: torch.cat([x, x * x], dim=1),
        lambda x: torch.cat(tuple(reversed(torch.chunk(x, 2, dim=1))), 1),
        lambda x: torch.split(x, [1, 3], 1)[1],
        lambda x: x.clone().mul_(3).add_(x),
        lambda x: x / (x * x + 1),
    ):
        compare(engine, 4, op)


@pytest.mark.parametrize('engine', ENGINES)
def test_a_map_may_divide_although_hidden_positions_hold_zero(engine: str) -> None:
    mask, x = dense_input(2)
    weight = torch.ones(1, 4, 1, 1, dtype=torch.double, requires_grad=True)
    got = (weight / sparsify(x, mask, engine)).to_dense()
    got.sum().backward()
    visible = mask.at((6, 8))[:, None].expand_as(x)
    want = torch.where(visible, 1 / torch.where(visible, x, 1), 0)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(weight.grad, want.sum((0, 2, 3), keepdim=True))


@pytest.mark.parametrize('engine', ENGINES)
def test_in_place_changes_the_map_itself_and_keeps_its_type(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    assert F.relu(y, inplace=True) is y
    y += y
    torch.testing.assert_close(y.to_dense(), 2 * x.relu())
    half = sparsify(x, mask, engine).bfloat16()
    half += torch.ones(1, 4, 1, 1)
    assert half.dtype == torch.bfloat16


def normed(x: Tensor, mask: CellMask) -> SparseFeatureMap:
    """The output of a batch norm, whose memory is the map's own."""
    return nn.BatchNorm2d(4, dtype=x.dtype)(sparsify(x, mask))


@pytest.mark.parametrize(
    'op', [F.relu_, nn.ReLU(inplace=True), nn.ReLU6(inplace=True), lambda y: y.add_(y)]
)
@pytest.mark.parametrize('trained', [False, True])
def test_in_place_after_a_norm_needs_no_memory(op, trained: bool) -> None:
    mask, x = dense_input(4)
    out = normed(x.requires_grad_(trained), mask)
    place, want = out.data.data_ptr(), op(out.data.detach().clone())
    assert op(out) is out
    assert out.data.data_ptr() == place
    assert torch.equal(out.data, want)


def test_images_keep_their_values() -> None:
    mask, x = dense_input(4)
    before = x.clone()
    F.relu_(sparsify(x, mask))
    assert torch.equal(x, before)


def test_a_leaf_that_wants_a_gradient_is_not_written_to() -> None:
    mask, x = dense_input(4)
    rows = sparsify(x, mask).rows.requires_grad_()
    first = sparsify(x, mask).with_rows(rows)
    F.relu_(first).rows.sum().backward()
    assert rows.min() < 0 and torch.equal(rows.grad, (rows > 0).to(rows.dtype))


class Block(nn.Module):
    """A residual block with a bias and both activations that can write in place."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            nn.Conv2d(4, 4, 3, padding=1, bias=i == 1, dtype=torch.double) for i in range(3)
        )
        self.norm = nn.GroupNorm(2, 4, dtype=torch.double)
        self.first, self.last = nn.ReLU6(inplace), nn.ReLU(inplace)
        self.inplace = inplace

    def forward(self, x: SparseFeatureMap) -> SparseFeatureMap:
        out = self.first(self.norm(self.convs[0](x)))
        out = self.convs[2](self.last(self.convs[1](out)))
        if self.inplace:
            out += x
        else:
            out = out + x
        return self.last(out)


@pytest.mark.parametrize('engine', ENGINES)
def test_writing_in_place_changes_no_number(engine: str) -> None:
    mask, x = dense_input(4)
    found = []
    for inplace, kind in ((False, 'masked_dense'), (True, engine)):
        block, source = Block(inplace), x.clone().requires_grad_()
        out = block(sparsify(source, mask, kind)).rows
        out.square().sum().backward()
        found.append([out.detach(), source.grad, *(p.grad for p in block.parameters())])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('engine', ENGINES)
def test_in_place_after_relu6_which_keeps_its_result(engine: str) -> None:
    mask, x = dense_input(4)
    norm = nn.BatchNorm2d(4, dtype=torch.double)

    def use(y, inplace: bool):
        y = F.relu6(norm(y), inplace=inplace)
        y += 1.0
        return F.relu_(y) if inplace else F.relu(y)

    found = []
    for inplace in (False, True):
        leaf = x.clone().requires_grad_()
        out = use(sparsify(leaf, mask, engine), inplace).rows
        out.square().sum().backward()
        found.append((out.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def halve(first: SparseFeatureMap) -> None:
    first *= 0.5


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('change', [F.relu_, lambda m: F.hardswish(m, inplace=True), halve])
def test_what_changes_nothing_gives_the_map_itself(engine: str, change) -> None:
    """As in torch: dropout in evaluation, or a cast to the type that it has."""
    mask, x = dense_input(4)
    for same in (lambda m: F.dropout(m, 0.5, False), lambda m: m.double(), lambda m: m.to(x)):
        first = sparsify(x, mask, engine) + 0
        second = same(first)
        change(second)
        assert torch.equal(first.rows, second.rows)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('change', [F.relu_, lambda m: F.hardswish(m, inplace=True), halve])
def test_what_is_a_copy_in_torch_keeps_its_values(engine: str, change) -> None:
    mask, x = dense_input(4)
    for copied in (
        lambda m: F.pad(m, (1, 1, 1, 1)).inner,
        lambda m: F.pad(m, (0, 0, 0, 0)),
        lambda m: torch.stack([m, m], 1).sum(1) * 0.5,
        lambda m: m.detach(),
        lambda m: m.clone(),
        lambda m: m + 0,
        lambda m: m.permute(0, 2, 3, 1).contiguous().inner,
    ):
        first = sparsify(x, mask, engine) + 0
        other, values = copied(first), first.rows.clone()
        change(first)
        assert torch.equal(other.rows, values) and not torch.equal(first.rows, values)
        change(other)
        assert torch.equal(other.rows, first.rows)


@pytest.mark.parametrize('limits', [(-1.0, 1.0), (0.0, 6.0), (-0.25, 0.5)])
def test_hardtanh_has_torchs_gradient_also_at_its_ends(limits: tuple[float, float]) -> None:
    low, high = limits
    mask, x = dense_input(2)
    rows = sparsify(x, mask).rows
    rows = torch.cat([rows[:-2], rows.new_tensor([[low] * 4, [high] * 4])])
    wanted, grad = rows.clone().requires_grad_(), torch.randn_like(rows)
    want = F.hardtanh(wanted, low, high)
    want.backward(grad)
    for inplace in (False, True):
        leaf = rows.clone().requires_grad_()
        got = nn.Hardtanh(low, high, inplace)(sparsify(x, mask).with_rows(leaf * 1.0))
        got.rows.backward(grad)
        assert torch.equal(got.rows, want) and torch.equal(leaf.grad, wanted.grad)


def test_relu6_saves_its_result_only() -> None:
    mask, x = dense_input(8)
    norm, conv = nn.BatchNorm2d(4).double(), nn.Conv2d(4, 4, 1, dtype=torch.double)
    first = sparsify(x, mask)

    def forward() -> Tensor:
        return conv(nn.ReLU6(inplace=True)(norm(first))).rows.sum()

    known = [*norm.parameters(), *conv.parameters(), first.data]
    small = 4 * 8 * 8  # statistics of the norm, running ones included
    assert first.data.nbytes <= saved_bytes(forward, known) <= first.data.nbytes + small
