"""Maps with a known mask, and an op on them compared with the dense op."""

import torch
from torch import Tensor

from hgkd_mm.sparse import CellMask, sparsify

ENGINES = ('tiles', 'masked_dense')
MASK = torch.tensor(
    [
        [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1]],
        [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
        [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]],
    ],
    dtype=torch.bool,
)


def dense_input(tile: int, channels: int = 4) -> tuple[CellMask, Tensor]:
    """A mask and a (3, C, 3 tile, 4 tile) tensor that is zero where hidden."""
    mask = CellMask(MASK)
    torch.manual_seed(tile)
    x = torch.randn(3, channels, 3 * tile, 4 * tile, dtype=torch.double)
    return mask, x * mask.at((3 * tile, 4 * tile))[:, None]


def compare(engine: str, tile: int, op, channels: int = 4, params=()) -> None:
    """Value and gradients of ``op`` on both kinds of map, hidden positions set to zero."""
    mask, x = dense_input(tile, channels)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = op(sparsify(a, mask, engine)).to_dense()
    want = op(b * 1)  # not the leaf itself, which an in-place op may not change
    want = want * mask.at(tuple(want.shape[-2:]))[:, None]
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    weights = torch.randn(want.shape, dtype=torch.double)
    grads_got = torch.autograd.grad((got * weights).sum(), [a, *params])
    grads_want = torch.autograd.grad((want * weights).sum(), [b, *params])
    visible = mask.at(tuple(x.shape[-2:]))[:, None]
    torch.testing.assert_close(grads_got[0], grads_want[0] * visible, rtol=1e-11, atol=1e-11)
    for one, other in zip(grads_got[1:], grads_want[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
