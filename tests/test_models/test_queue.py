"""Memory queue against a plain Python list."""

import numpy as np
import pytest
import torch

from hgkd_mm.models.queue import MemoryQueue


def numbered(first: int, count: int, dim: int = 3) -> torch.Tensor:
    """Rows that carry their own number, so that order is visible."""
    return torch.arange(first, first + count).float().unsqueeze(1).expand(count, dim)


@pytest.mark.parametrize('batches', [[3], [2, 2, 2, 2], [7], [10, 1], [4, 16, 3], [0, 5, 0, 9]])
def test_keeps_the_last_size_entries_for_any_batch_size(batches: list[int]) -> None:
    queue = MemoryQueue(size=7, dim=3)
    written: list[int] = []
    for count in batches:
        queue.enqueue(numbered(len(written), count))
        written += range(len(written), len(written) + count)
        assert queue.num_stored == min(len(written), 7)
        assert sorted(queue.stored()[:, 0].tolist()) == written[-7:]


def test_overwrites_the_oldest_first_and_in_place_order() -> None:
    queue = MemoryQueue(size=5, dim=1)
    ring = np.zeros(5)
    written = 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        count = int(torch.randint(1, 12, (), generator=generator))
        queue.enqueue(numbered(written, count, dim=1))
        for number in range(written, written + count):
            ring[number % 5] = number
        written += count
        np.testing.assert_array_equal(queue.entries[:, 0].numpy(), ring)
        assert int(queue.pointer) == written % 5


def test_stored_entries_survive_the_next_enqueue() -> None:
    queue = MemoryQueue(size=2, dim=3)
    assert queue.stored().shape == (0, 3)
    queue.enqueue(numbered(1, 2).requires_grad_() * 1)
    assert not queue.entries.requires_grad
    weight = torch.ones(3, requires_grad=True)
    loss = (queue.stored() @ weight).square().sum()
    queue.enqueue(numbered(50, 2))
    loss.backward()
    # d/dw of (3)^2 + (6)^2 with rows (1,1,1) and (2,2,2): 2*3*1 + 2*6*2 per channel.
    assert weight.grad.tolist() == [30.0, 30.0, 30.0]


def test_continues_from_a_checkpoint() -> None:
    queue = MemoryQueue(size=5, dim=3)
    queue.enqueue(numbered(0, 4))
    restored = MemoryQueue(size=5, dim=3)
    restored.load_state_dict({name: value.clone() for name, value in queue.state_dict().items()})
    assert restored.num_stored == 4
    for q in (queue, restored):
        q.enqueue(numbered(4, 3))
    torch.testing.assert_close(restored.entries, queue.entries, rtol=0, atol=0)
    assert restored.entries[:, 0].tolist() == [5.0, 6.0, 2.0, 3.0, 4.0]
    assert restored.num_stored == 5


def test_queue_of_another_size_in_a_lenient_load_leaves_it_empty() -> None:
    saved = MemoryQueue(size=8, dim=3)
    saved.enqueue(numbered(0, 8))
    parent = torch.nn.ModuleDict(dict(queue=MemoryQueue(size=4, dim=3)))
    errors: list[str] = []
    state = {f'queue.{name}': value for name, value in saved.state_dict().items()}
    for name, module in parent.named_children():
        module._load_from_state_dict(state, f'{name}.', {}, False, [], [], errors)
    assert any('size mismatch' in error for error in errors)
    assert parent['queue'].num_stored == 0
    assert int(parent['queue'].filled) == 0
    assert parent['queue'].stored().shape == (0, 3)
