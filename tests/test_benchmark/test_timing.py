"""The arithmetic of the benchmark, with steps of known cost."""

import pytest
import torch

from hgkd_mm.benchmark import encoder_steps, measure, saved_bytes


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    costs = {'ref': iter([9, 1.0, 2.0, 4.0]), 'half': iter([9, 0.5, 1.0, 4.0])}
    monkeypatch.setattr('hgkd_mm.benchmark.timing.time.perf_counter', lambda: clock[0])

    def step(name: str):
        def run() -> None:
            clock[0] += next(costs[name])

        return run

    ref, half = measure(
        {'ref': step('ref'), 'half': step('half')}, reference='ref', rounds=3, warmup=1
    )
    assert ref.seconds == [1, 2, 4] and ref.ratio == ref.low == ref.high == 1
    assert half.seconds == [0.5, 1, 4]
    assert (half.ratio, half.low, half.high, half.median) == (0.5, 0.5, 1.0, 1.0)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match='not among the steps'):
        measure({'a': int}, reference='b')
    with pytest.raises(ValueError, match='--rounds'):
        measure({'a': int}, reference='a', rounds=0)


def test_saved_bytes_counts_each_storage_once_and_no_parameter() -> None:
    weight = torch.randn(10, 10, requires_grad=True)
    x = torch.randn(5, 10)

    def forward() -> torch.Tensor:
        y = x @ weight  # saves x (200 bytes) and the weight
        return (y.exp() * 2).exp().sum()  # saves two results of 200 bytes

    assert saved_bytes(forward, [weight]) == 3 * 200


def test_encoder_steps_leave_gradients_and_save_less_when_sparse() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    )

    class Maps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network

        def forward(self, x):
            return (self.body(x),)

    model = Maps()
    found = encoder_steps(model, batch=2, size=64, cell=16, mask_ratio=0.75)
    assert set(found.train) == {'dense', 'tiles', 'masked_dense'}
    for run in found.train.values():
        run()
        assert network[0].weight.grad.abs().sum() > 0
    saved = {name: saved_bytes(run, found.known) for name, run in found.forward.items()}
    assert saved['tiles'] < 0.5 * saved['dense']
