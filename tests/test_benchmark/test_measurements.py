"""Encoders, methods, kernels and parity on small inputs, and the command that prints them."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hgkd_mm.benchmark import Settings, Stage, profile
from hgkd_mm.benchmark.encoder import (
    COMPILED,
    GRAPH,
    SPARK,
    SPARK_NETWORKS,
    EncoderStep,
    build_encoder,
    encoder_steps,
    measure_encoder,
)
from hgkd_mm.benchmark.methods import CONVOLUTIONS, measure_methods
from hgkd_mm.benchmark.parity import FLOOR, largest_error

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = Settings(network='resnet18', batch=2, size=64, rounds=1)


def test_an_encoder_is_compared_with_dense() -> None:
    table = Stage('encoder').table('encoder')
    measure_encoder(table, SMALL, ('dense', 'tiles', 'masked_dense', SPARK))
    rows = {row['step']: row for row in table.rows}
    assert list(rows) == ['dense', 'tiles', 'masked_dense', SPARK]
    saved = {name: row['saved MiB'] for name, row in rows.items()}
    assert saved['tiles'] < 0.7 * saved['dense'] < saved['masked_dense']
    assert rows['dense']['ratio to dense'] == 1 and rows['tiles']['saved, of dense'] < 0.7
    half = encoder_steps(replace(SMALL, mask_ratio=0.5), ('tiles',))['tiles'].saved_bytes()
    full = encoder_steps(replace(SMALL, mask_ratio=0.0), ('tiles',))['tiles'].saved_bytes()
    assert half == pytest.approx(full / 2, rel=0.1)


class Maps(torch.nn.Sequential):
    def forward(self, x):
        return (super().forward(x),)


@pytest.mark.parametrize('kind', ['dense', 'tiles', 'masked_dense', GRAPH])
def test_a_step_leaves_gradients(kind: str) -> None:
    network = Maps(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    EncoderStep(network, replace(SMALL, cell=16, mask_ratio=0.75), kind)()
    assert network[0].weight.grad.abs().sum() > 0


def test_torch_compile_decides_itself_what_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'compile', lambda network: network)
    steps = encoder_steps(SMALL, ('dense', COMPILED))
    assert steps[COMPILED].saved_bytes() is None


@pytest.mark.parametrize('name', ['resnet18', 'convnext_tiny'])
def test_mmpretrains_networks_have_our_parameters(name: str) -> None:
    from mmpretrain.registry import MODELS

    networks = build_encoder(name), MODELS.build(dict(SPARK_NETWORKS[name]))
    ours, theirs = (sum(p.numel() for p in network.parameters()) for network in networks)
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_depthwise_layers_have_two_methods() -> None:
    stage = Stage('methods')
    measure_methods(
        stage, Settings(batch=1, size=64, rounds=1), [CONVOLUTIONS[0], CONVOLUTIONS[-1]]
    )
    (table,) = stage.tables
    assert [row['columns'] is None for row in table.rows] == [False] * 3 + [True] * 3
    assert {len(cells) for cells in table.cells()} == {len(table.columns)}


def test_names_of_kernels_are_shortened() -> None:
    name = 'void at::native::(anonymous namespace)::gather_kernel<float, at::native::Sum>(float*)'
    assert profile.short_name(name) == 'gather_kernel<float, Sum>(float*)'
    assert profile.short_name('a' * 100, most=10) == 'a' * 9 + '…'


def test_waits_are_told_by_the_line_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', modes.append)

    def step() -> None:
        for message in (profile.WAIT_MESSAGE, profile.WAIT_MESSAGE, 'something else'):
            warnings.warn(message, stacklevel=1)

    ((line, count),) = profile.count_waits(step).items()
    assert count == 2 and 'test_benchmark/test_measurements.py:' in line
    assert modes == ['warn', 'default']


def test_errors_are_relative_to_each_tensor_but_for_those_that_should_vanish() -> None:
    wanted = [torch.tensor([3.0, 4.0]), torch.tensor([1e-9])]
    assert largest_error([torch.tensor([3.0, 4.5]), wanted[1]], wanted) == pytest.approx(0.1)
    noise = largest_error([wanted[0], torch.tensor([2e-5])], wanted)
    assert noise == pytest.approx(2e-5 / (5 * FLOOR), rel=1e-3)
    assert not largest_error([wanted[0], torch.tensor([float('nan')])], wanted) <= 1


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    path = tmp_path / 'out.json'
    small = ['--network', 'resnet18', '--batch', '1', '--size', '64', '--rounds', '1']
    command = [sys.executable, 'tools/benchmark.py', 'encoder', '--engines', 'tiles', *small]
    done = subprocess.run(
        [*command, '--json', str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 'tiles' in done.stdout and 'torch' in done.stdout
    written = json.loads(path.read_text())
    assert [row['step'] for row in written['tables'][0]['rows']] == ['dense', 'tiles', SPARK]
    assert written['arguments']['batch'] == '1'
