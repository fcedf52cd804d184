"""Progressive redundant token masking against planted duplicates and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.half import HALVES
from torch import Tensor, nn

from hgkd_mm.models.token_masking import RedundantTokenMasking


class Record(nn.Module):
    """A block that changes nothing, and keeps what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


def run(masking: RedundantTokenMasking, x: Tensor, count: int, prefix: int = 1):
    blocks = [Record() for _ in range(count)]
    with masking.applied(blocks, prefix) as surviving:
        for block in blocks:
            x = block(x)
    return x, surviving, blocks


def test_the_choice_against_numpy() -> None:
    tokens = torch.randn(3, 10, 5, generator=torch.Generator().manual_seed(1))
    kept = RedundantTokenMasking(keep_ratio=0.4).keep(tokens)
    for image, ours in zip(tokens.numpy().astype(np.float64), kept, strict=True):
        unit = image / np.linalg.norm(image, axis=1, keepdims=True)
        redundancy = unit @ unit.mean(0)
        assert ours.tolist() == sorted(np.argsort(redundancy)[:4].tolist())


@pytest.mark.parametrize('dtype', HALVES)
def test_the_choice_is_not_rounded_under_autocast(dtype: torch.dtype) -> None:
    # Tokens that share most of what they are, so that redundancies lie close together.
    generator = torch.Generator().manual_seed(3)
    tokens = 1 + 0.05 * torch.randn(2, 196, 64, generator=generator)
    masking = RedundantTokenMasking(keep_ratio=0.7)
    expected = masking.keep(tokens)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(masking.keep(tokens), expected)


def test_class_token_is_exempt_and_the_index_is_of_the_whole_grid() -> None:
    x = torch.randn(2, 1 + 20, 4, generator=torch.Generator().manual_seed(2))
    # Like the mean of all others, and yet it stays.
    x[:, 0] = x[:, 1:].mean(1)
    out, surviving, blocks = run(RedundantTokenMasking(keep_ratio=0.5), x, count=6)
    assert [block.seen[0].shape[1] for block in blocks] == [21, 11, 11, 6, 6, 3]
    assert torch.equal(out[:, 0], x[:, 0])
    patches = x[:, 1:].gather(1, surviving.index.unsqueeze(-1).expand(-1, -1, 4))
    assert torch.equal(out[:, 1:], patches)
    assert surviving.at(0) is None
    for block in range(1, 6):
        here = x[:, 1:].gather(1, surviving.at(block).unsqueeze(-1).expand(-1, -1, 4))
        assert torch.equal(blocks[block].seen[0][:, 1:], here)


def test_dropping_nothing_changes_nothing_and_hooks_go() -> None:
    x = torch.randn(1, 5, 3)
    out, surviving, blocks = run(RedundantTokenMasking(keep_ratio=1.0), x, count=3)
    assert out is x
    assert surviving.index is None
    assert surviving.at(2) is None
    assert all(not block._forward_hooks for block in blocks)
    with pytest.raises(RuntimeError), RedundantTokenMasking(keep_ratio=0.5).applied(blocks, 1):
        raise RuntimeError
    assert all(not block._forward_hooks for block in blocks)


def test_gradient_reaches_the_kept_tokens_only() -> None:
    x = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    out, surviving, _ = run(RedundantTokenMasking(keep_ratio=0.5, after=(0,)), x, count=2)
    out.sum().backward()
    expected = torch.zeros(9)
    expected[0] = 1
    expected[surviving.index[0] + 1] = 1
    assert torch.equal(x.grad[0, :, 0], expected)


def test_random_is_the_ablation() -> None:
    tokens = torch.eye(16).unsqueeze(0)
    torch.manual_seed(0)
    masking = RedundantTokenMasking(keep_ratio=0.5, distance='random')
    drawn = {tuple(masking.keep(tokens)[0].tolist()) for _ in range(5)}
    assert len(drawn) > 1


def test_default_blocks_and_counts() -> None:
    for count, after in ((1, ()), (2, (0,)), (3, (0, 1)), (4, (0, 1, 2))):
        assert RedundantTokenMasking().blocks(count) == after
    assert RedundantTokenMasking().blocks(12) == (0, 4, 8)
    assert RedundantTokenMasking().blocks(24) == (0, 8, 16)
    assert RedundantTokenMasking(keep_ratio=0.7).counts(196, 12) == (137, 95, 66)
    assert RedundantTokenMasking(keep_ratio=0.29).counts(100, 12)[0] == 29


def test_refusals() -> None:
    for ratio in (0.0, 1.2):
        with pytest.raises(ValueError, match=f'keep_ratio is {ratio}, expected more than 0'):
            RedundantTokenMasking(keep_ratio=ratio)
    with pytest.raises(ValueError, match="distance is 'far', expected one of 'cosine', 'random'"):
        RedundantTokenMasking(distance='far')
    for after in ((0, 5), (-1,)):
        with pytest.raises(ValueError, match=r'the student has 6 blocks.* from 0 to 4'):
            RedundantTokenMasking(after=after).blocks(6)
    with pytest.raises(ValueError, match='leaves nothing of 9 tokens'):
        RedundantTokenMasking(keep_ratio=0.1).keep(torch.randn(1, 9, 4))
