"""Encoders by engine and mask ratio, and what stands in where mmpretrain or memory is missing."""

from dataclasses import replace

import pytest
import torch

from hgkd_mm.benchmark import Settings, Stage, encoder, saved_bytes
from hgkd_mm.benchmark.check import SMALL
from hgkd_mm.benchmark.encoder import (
    NETWORKS,
    build_mmpretrain,
    build_network,
    encoder_steps,
    measure_encoder,
    measure_networks,
    measure_ratios,
)
from hgkd_mm.benchmark.report import LeftOutError
from hgkd_mm.sparse import CellMask, sparsify

pytestmark = pytest.mark.slow

SETTINGS = Settings(network='resnet18', batch=2, size=64, rounds=1)


class Maps(torch.nn.Sequential):
    def forward(self, x):
        return (super().forward(x),)


def test_steps_leave_gradients_and_save_less_when_sparse() -> None:
    network = Maps(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    settings = replace(SETTINGS, cell=16, mask_ratio=0.75)
    found = encoder_steps(network, settings, ('dense', 'tiles', 'masked_dense'))
    assert set(found.train) == {'dense', 'tiles', 'masked_dense'}
    for run in found.train.values():
        run()
        assert network[0].weight.grad.abs().sum() > 0
    saved = {name: saved_bytes(run, found.known) for name, run in found.forward.items()}
    assert saved['tiles'] < 0.5 * saved['dense']


def test_all_are_compared_with_dense() -> None:
    stage = Stage('encoder')
    measure_encoder(stage, SETTINGS, ['tiles', 'masked_dense'])
    (table,) = stage.tables
    names = ['dense', 'tiles', 'masked_dense', 'mmpretrain sparse']
    assert [row[0] for row in table.rows] == [r['name'] for r in table.records] == names
    saved = {r['name']: r['saved_bytes'] for r in table.records}
    assert saved['tiles'] < 0.7 * saved['dense'] < saved['masked_dense']
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.records[0]['ratio'] == 1 and 'resnet18, batch 2, 64 px' in table.title


def test_a_network_without_a_counterpart_in_mmpretrain() -> None:
    stage = Stage('encoder')
    measure_encoder(stage, replace(SETTINGS, network='mobilenet_v2', batch=1), ['tiles'])
    assert [row[0] for row in stage.tables[0].rows] == ['dense', 'tiles']


def test_the_line_over_mask_ratios() -> None:
    stage = Stage('ratios')
    measure_ratios(stage, SETTINGS, (0.0, 0.5))
    records = stage.tables[0].records
    assert [r['visible'] for r in records] == [1.0, 1.0, 0.5]
    _, full, half = (r['saved_bytes'] for r in records)
    assert half == pytest.approx(full / 2, rel=0.1)


@pytest.mark.parametrize('name', ['resnet18', 'convnext_tiny'])
def test_mmpretrains_networks_have_our_parameters(name: str) -> None:
    sizes = [
        sum(p.numel() for p in build_mmpretrain(config).parameters()) for config in NETWORKS[name]
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


def test_every_network_runs_on_tiles() -> None:
    mask = CellMask.random(batch=1, grid=(2, 2), mask_ratio=0.5)
    for name in NETWORKS:
        maps = build_network(name)(sparsify(torch.randn(1, 3, 64, 64), mask))
        assert len(maps) == 4, name


def test_masked_dense_stands_in_for_mmpretrains_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise LeftOutError('mmpretrain is missing.')

    monkeypatch.setattr(encoder, 'import_openmmlab', missing)
    monkeypatch.setattr(encoder, 'MASK_RATIOS', (0.5,))
    stage = Stage('encoder')
    measure_networks(stage, SMALL.settings, {'mobilenetv2_050': 'mobilenet_v2'}, 2)
    (table,) = stage.tables
    assert [r['name'] for r in table.records] == ['dense', 'masked_dense', 'tiles']
    assert any('mmpretrain is missing.' in note for note in stage.notes)


def test_a_network_that_cannot_be_measured_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = iter([torch.cuda.OutOfMemoryError('no memory left'), RuntimeError('out of order')])

    def fails(*_: object) -> list:
        raise next(errors)

    monkeypatch.setattr(encoder, 'measure', fails)
    monkeypatch.setattr(encoder, 'MASK_RATIOS', (0.5,))
    stage = Stage('encoder')
    measure_networks(stage, SMALL.settings, SMALL.encoder, 2)
    first, second = (f'{name}, batch 2, float32, mask ratio 0.5' for name in SMALL.encoder)
    assert any(first in note and 'no memory left' in note for note in stage.notes)
    assert stage.broken == [f'{second}: RuntimeError: out of order']


def test_without_time_it_names_what_is_left_out() -> None:
    stage = Stage('encoder', share_end=0.0)
    measure_networks(stage, SMALL.settings, SMALL.encoder, 2)
    assert stage.tables[0].rows == []
    assert any('mobilenetv2_050, batch 2, float32, mask ratio 0.75' in n for n in stage.notes)
