"""Memory queue of teacher embeddings."""

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn


class MemoryQueue(nn.Module):
    """First-in-first-out store of teacher embeddings, the same on every rank.

    Stated: similarities are computed via a memory queue (H-GKD TL;DR). Inferred from
    SEED (docs/sources.md 1.3b): it holds teacher embeddings only, gathered over ranks, and takes
    in a batch after that batch's loss. Unlike SEED's it starts empty, not full of random
    vectors, and the batch need not divide its size.

    The fill level and the write position are Python ints, so that no value is read back from
    the device; the buffers ``pointer`` and ``filled`` mirror them for the checkpoint.

    Args:
        size: capacity K, in entries.
        dim: width E of an entry.
    """

    entries: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, *, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.dim = dim
        self.register_buffer('entries', torch.zeros(size, dim))
        self.register_buffer('pointer', torch.zeros((), dtype=torch.long))
        self.register_buffer('filled', torch.zeros((), dtype=torch.long))
        self._next = 0
        self._count = 0

    @property
    def num_stored(self) -> int:
        """How many entries have been written, at most ``size``."""
        return self._count

    def stored(self) -> Tensor:
        """A copy (n, E) of the entries written so far, n = ``num_stored``."""
        # A copy, because enqueue writes in place before the loss of these entries is
        # differentiated.
        # Until the first wrap, entries are written from the start: [:count] is all of them.
        return self.entries[: self._count].clone()

    @torch.no_grad()
    def enqueue(self, embeddings: Tensor) -> None:
        """Writes the embeddings of all ranks, in rank order, over the oldest entries.

        Collective: every rank must call it, with a batch of the same size. Of more than ``size``
        embeddings the last ``size`` stay.

        Args:
            embeddings: (B, E) of this rank.
        """
        rows = torch.cat(all_gather(embeddings.detach().to(self.entries.dtype)))
        total = rows.shape[0]
        dropped = max(total - self.size, 0)
        rows = rows[dropped:]
        start = (self._next + dropped) % self.size
        head = min(rows.shape[0], self.size - start)
        self.entries[start : start + head] = rows[:head]
        self.entries[: rows.shape[0] - head] = rows[head:]
        self._set(pointer=(self._next + total) % self.size, filled=self._count + total)

    def _set(self, *, pointer: int, filled: int) -> None:
        self._next = pointer
        self._count = min(filled, self.size)
        self.pointer.fill_(self._next)
        self.filled.fill_(self._count)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        saved = state_dict.get(f'{prefix}entries')
        if saved is not None and saved.shape != self.entries.shape:
            # A non-strict load goes on after a queue of another size: its fill level would
            # then declare entries that were never written.
            self._set(pointer=0, filled=0)
        else:
            self._set(pointer=int(self.pointer), filled=int(self.filled))
