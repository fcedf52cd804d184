"""A SparseFeatureMap as a stand-in for a tensor: properties, operators, refusals, dense maps."""

import pytest
import torch
from helpers.maps import ENGINES, MASK, dense_input
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask, UnsupportedOpError, sparsify


@pytest.mark.parametrize('engine', ENGINES)
def test_it_has_the_properties_of_a_tensor(engine: str) -> None:
    mask, x = dense_input(2)
    y = sparsify(x, mask, engine)
    assert y.shape == x.shape and y.size() == x.size() and y.size(1) == 4
    assert y.dim() == y.ndim == 4 and y.numel() == x.numel()
    assert y.dtype == torch.double and y.device == x.device and not y.requires_grad
    assert y.float().dtype == torch.float
    assert y.contiguous() is y
    assert 'SparseFeatureMap(3x4x6x8' in repr(y)


@pytest.mark.parametrize('engine', ENGINES)
def test_dense_with_a_learned_fill(engine: str) -> None:
    mask, x = dense_input(2)
    token = torch.randn(1, 4, 1, 1, dtype=torch.double, requires_grad=True)
    dense = sparsify(x, mask, engine).to_dense(token)
    visible = mask.at((6, 8))[:, None]
    torch.testing.assert_close(dense, torch.where(visible, x, token))
    dense.sum().backward()
    hidden = (~visible).sum().item()
    torch.testing.assert_close(token.grad, torch.full_like(token, hidden))
    for seven in (7.0, torch.tensor(7.0)):
        filled = sparsify(x, mask, engine).to_dense(seven)
        assert (filled[~visible.expand_as(x)] == 7.0).all()
    with pytest.raises(ValueError, match='4 .*3'):
        sparsify(x, mask, engine).to_dense(torch.zeros(3))


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.flip(x, (3,))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    ('layer', 'error', 'words'),
    [
        (Flip(), UnsupportedOpError, r"flip in layer '1.0' \(Flip\)"),
        (nn.Conv2d(4, 4, 3), ValueError, r"conv2d in layer '1.0' \(Conv2d\)"),
        (nn.Conv2d(4, 4, 4, 4), ValueError, r"layer '1.0'.*mask.cell"),
        (nn.Conv2d(8, 4, 1), ValueError, r"layer '1.0'.*8 .*4"),
        (nn.AdaptiveAvgPool2d(2), UnsupportedOpError, 'adaptive_avg_pool2d in layer'),
        (nn.MaxPool2d(2, return_indices=True), UnsupportedOpError, 'with_indices in layer'),
    ],
)
def test_what_it_cannot_do_names_the_op_and_the_layer(engine, layer, error, words) -> None:
    mask, x = dense_input(2)
    with pytest.raises(error, match=words):
        network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(layer))
        network(sparsify(x.float(), mask, engine))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    'use',
    [
        lambda x: x == x,
        lambda x: x > 0,
        lambda x: x[0],
        lambda x: x @ x,
        lambda x: 1 / x,
        lambda x: bool(x),
        lambda x: len(x),
        lambda x: x.to('meta'),
        lambda x: x.T,
        lambda x: x.flatten(1),
    ],
)
def test_no_operator_falls_through_to_python(engine: str, use) -> None:
    mask, x = dense_input(2)
    with pytest.raises(UnsupportedOpError, match='in layer'):
        use(sparsify(x, mask, engine))


@pytest.mark.parametrize('engine', ENGINES)
def test_maps_of_different_masks_do_not_mix(engine: str) -> None:
    mask, x = dense_input(2)
    with pytest.raises(UnsupportedOpError, match='add in layer'):
        sparsify(x, mask, engine) + sparsify(x, CellMask(MASK), engine)
    with pytest.raises(UnsupportedOpError, match=r'3, 4, 5, 5'):
        sparsify(x, mask, engine) + torch.zeros(3, 4, 5, 5)
