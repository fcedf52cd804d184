"""The arithmetic of the benchmark, with steps of known cost."""

import weakref

import pytest
import torch

from hgkd_mm.benchmark import Settings, measure, saved_bytes


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    costs = {'ref': iter([9, 1.0, 2.0, 4.0]), 'half': iter([9, 0.5, 1.0, 4.0])}
    monkeypatch.setattr('hgkd_mm.benchmark.timing.time.perf_counter', lambda: clock[0])

    def step(name: str):
        def run() -> None:
            clock[0] += next(costs[name])

        return run

    steps = {'ref': step('ref'), 'half': step('half')}
    ref, half = measure(steps, Settings(rounds=3, warmup=1), 'ref')
    assert ref.seconds == [1, 2, 4] and ref.ratio == ref.low == ref.high == 1
    assert half.seconds == [0.5, 1, 4]
    assert (half.ratio, half.low, half.high, half.median) == (0.5, 0.5, 1.0, 1.0)


def test_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match='--rounds'):
        measure({'a': int}, Settings(rounds=0), 'a')


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
