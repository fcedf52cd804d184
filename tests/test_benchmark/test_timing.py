"""The arithmetic of the benchmark, with steps of known cost."""

import weakref

import pytest
import torch

from hgkd_mm.benchmark import Settings, measure, saved_bytes
from hgkd_mm.benchmark.timing import step_row


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    costs = {'ref': iter([9, 1.0, 2.0, 4.0]), 'half': iter([9, 0.5, 1.0, 4.0])}
    monkeypatch.setattr('hgkd_mm.benchmark.timing.time.perf_counter', lambda: clock[0])

    def step(name: str):
        def run() -> None:
            clock[0] += next(costs[name])

        return run

    settings = Settings(rounds=3, warmup=1, batch=2)
    ref, half = measure({'ref': step('ref'), 'half': step('half')}, settings, 'ref')
    assert (ref.seconds, ref.ratios) == ([1, 2, 4], [1, 1, 1])
    assert (half.seconds, half.ratios, half.median) == ([0.5, 1, 4], [0.5, 0.5, 1], 1)
    row = step_row(half, int, settings, 'ref')
    assert (row['ms'], row['range'], row['images/s']) == (1000, '500-4000', 2)
    assert (row['ratio to ref'], row['ratio range']) == (0.5, '0.500-1.000')


def test_saved_bytes_counts_each_storage_once_and_no_parameter() -> None:
    weight = torch.randn(10, 10, requires_grad=True)
    x = torch.randn(5, 10)

    def forward() -> torch.Tensor:
        y = x @ weight  # saves x (200 bytes) and the weight
        return (y.exp() * 2).exp().sum()  # saves two results of 200 bytes

    assert saved_bytes(forward, [weight]) == 3 * 200


def test_saved_bytes_leaves_no_graph_behind() -> None:
    class Probe:
        pass

    probes: list[weakref.ref] = []

    def forward() -> torch.Tensor:
        result = torch.ones(3, requires_grad=True).exp()  # saves what it returns
        probe = result.grad_fn.metadata['probe'] = Probe()
        probes.append(weakref.ref(probe))
        return result

    saved_bytes(forward, [])
    assert probes[0]() is None
