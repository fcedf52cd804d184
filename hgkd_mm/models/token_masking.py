"""Progressive redundant token masking of Hybrid Distill."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .teachers.base import one_of
from .tokens import take


class SurvivingTokens:
    """Which patch tokens are left, block by block, while a transformer runs."""

    def __init__(self) -> None:
        self._drops: list[tuple[int, Tensor]] = []

    @property
    def index(self) -> Tensor | None:
        """(B, n) positions of those that are left, in raster order; None if none was dropped."""
        return self._drops[-1][1] if self._drops else None

    def at(self, block: int) -> Tensor | None:
        """The same for those that enter a block."""
        earlier = [index for dropped_after, index in self._drops if dropped_after < block]
        return earlier[-1] if earlier else None

    def drop(self, block: int, kept: Tensor) -> None:
        """Notes that of the tokens that left ``block`` those at (B, k) are kept."""
        before = self.index
        self._drops.append((block, kept if before is None else before.gather(1, kept)))


class RedundantTokenMasking:
    r"""Drops the most redundant patch tokens after some blocks (Hybrid Distill, abstract).

    Stated: "a progressive redundant token masking strategy is also utilized to reduce the
    distilling costs and avoid falling into local optima"; less aggressive than MAE's (review).
    Inferred, hence knobs (docs/sources.md 2.5): the steps are those of PCAE's code, by the same
    authors: tokens are L2-normalized, and those nearest to their mean are redundant.

    Prefix tokens (class, registers) are never dropped, and no gradient runs through the choice.

    Args:
        keep_ratio: fraction of the tokens that each drop keeps, rounded down. Inferred default
            .7: PCAE's .5 leaves 12.5 % after three drops, fewer than MAE shows; .7 leaves 34 %.
        after: blocks, counted from 0, after which tokens are dropped; None for
            :math:`0, \lfloor L/3 \rfloor, 2 \lfloor L/3 \rfloor` of L blocks (PCAE's code).
        distance: 'cosine' to the mean of the normalized tokens, or 'random', which drops any
            (the ablation).

    Raises:
        ValueError: the ratio or the distance is out of its range.
    """

    def __init__(
        self,
        *,
        keep_ratio: float = 0.7,
        after: Sequence[int] | None = None,
        distance: str = 'cosine',
    ) -> None:
        if not 0 < keep_ratio <= 1:
            raise ValueError(
                f'model.masking.keep_ratio is {keep_ratio}, expected more than 0, since something '
                'must be left, and at most 1, which drops nothing.'
            )
        one_of('model.masking.distance', distance, ('cosine', 'random'))
        self.keep_ratio = keep_ratio
        self.after = None if after is None else tuple(sorted(after))
        self.distance = distance

    def blocks(self, count: int) -> tuple[int, ...]:
        """The blocks after which tokens are dropped, of a transformer of ``count`` blocks.

        Raises:
            ValueError: ``after`` names a block that is not there, or the last one.
        """
        if self.after is None:
            # A very shallow transformer has fewer than three blocks to drop after.
            third = count // 3
            return tuple(sorted(block for block in {0, third, 2 * third} if block < count - 1))
        if not all(0 <= block < count - 1 for block in self.after):
            raise ValueError(
                f'model.masking.after is {list(self.after)}, but the student has {count} blocks: '
                f'name blocks from 0 to {count - 2}, since after the last one nothing is saved.'
            )
        return self.after

    def counts(self, tokens: int, blocks: int) -> tuple[int, ...]:
        """Patch tokens that are left after each drop, of an image's ``tokens``."""
        left = [tokens]
        for _ in self.blocks(blocks):
            left.append(self._kept(left[-1]))
        return tuple(left[1:])

    def keep(self, tokens: Tensor) -> Tensor:
        """Positions (B, k) of the patch tokens (B, n, D) that are kept, in ascending order.

        Raises:
            ValueError: nothing would be left.
        """
        kept = self._kept(tokens.shape[1])
        order = self._redundancy(tokens.detach()).argsort(dim=1, stable=True)
        return order[:, :kept].sort(dim=1).values

    @contextmanager
    def applied(self, blocks: Sequence[nn.Module], prefix: int) -> Iterator[SurvivingTokens]:
        """Drops tokens while a transformer runs inside the ``with``.

        Args:
            blocks: the transformer's, in order; each maps (B, prefix + n, D) to the same.
            prefix: number of class and register tokens in front.

        Yields:
            What is left, as it becomes known.
        """
        surviving = SurvivingTokens()
        handles = [
            blocks[number].register_forward_hook(partial(self._drop, surviving, number, prefix))
            for number in self.blocks(len(blocks))
        ]
        try:
            yield surviving
        finally:
            for handle in handles:
                handle.remove()

    def _drop(
        self,
        surviving: SurvivingTokens,
        number: int,
        prefix: int,
        block: nn.Module,
        inputs: tuple,
        output: Tensor,
    ) -> Tensor:
        first, patches = output[:, :prefix], output[:, prefix:]
        if self._kept(patches.shape[1]) == patches.shape[1]:
            return output
        kept = self.keep(patches)
        surviving.drop(number, kept)
        return torch.cat([first, take(patches, kept)], dim=1)

    def _redundancy(self, tokens: Tensor) -> Tensor:
        """(B, n), high where a token is like the others."""
        if self.distance == 'random':
            return torch.rand(tokens.shape[:2], device=tokens.device)
        # In bfloat16, which autocast would take again for the product, hundreds of tokens have a
        # dozen different redundancies, and where they stand in the image would decide.
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = F.normalize(tokens.float(), dim=2)
            return (tokens @ tokens.mean(1, keepdim=True).transpose(1, 2)).squeeze(2)

    def _kept(self, tokens: int) -> int:
        # .29 * 100 is 28.999...
        kept = math.floor(tokens * self.keep_ratio + 1e-9)
        if kept < 1:
            raise ValueError(
                f'model.masking.keep_ratio is {self.keep_ratio}, which leaves nothing of {tokens} '
                'tokens: raise it, drop after fewer blocks (model.masking.after), or use larger '
                'images.'
            )
        return kept
