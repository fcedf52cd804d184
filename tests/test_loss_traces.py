"""Loss traces of short trainings in float64: a change of the code that is none of the method's
leaves them as they are. ``python tests/test_loss_traces.py`` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

ROOT = Path(__file__).parents[1]
TRACES = Path(__file__).with_suffix('.json')
STEPS, BATCH = 6, 4
RUNS = {
    'HGKD, tiles': ('hgkd_r18_scenes', {}),
    'HGKD, masked_dense': ('hgkd_r18_scenes', {'model.engine': 'masked_dense'}),
    'HGKD, two teachers': ('hybrid-hgkd_r18_scenes', {}),
    'SparK': ('spark_r18_scenes', {}),
    'HybridDistill': ('hybrid_vit_scenes', {}),
}


def trace(name: str) -> list[dict[str, float]]:
    """Every logged value of every step, from fixed weights, images and masks."""
    config, options = RUNS[name]
    settings = Config.fromfile(ROOT / 'configs' / 'pretrain' / f'{config}.py')
    settings.merge_from_dict(options)
    for teacher in (settings.model.get('teachers') or {}).values():
        teacher.checkpoint = str(ROOT / teacher.checkpoint)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(settings.model)
    model.init_weights()
    model.double().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = []
    for _ in range(STEPS):
        images = torch.randn(BATCH, 3, 12, 12, dtype=torch.float64)
        images = torch.nn.functional.interpolate(images, size=96, mode='bicubic')
        total, logged = model.parse_losses(model.loss(images))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        steps.append({key: float(value.detach()) for key, value in logged.items()})
    return steps


@pytest.mark.parametrize('name', RUNS)
def test_the_trace_is_that_of_the_record(name: str) -> None:
    recorded = json.loads(TRACES.read_text())[name]
    assert len(recorded) == STEPS
    for step, (found, expected) in enumerate(zip(trace(name), recorded, strict=True)):
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-9), f'step {step}'


def test_engines_agree() -> None:
    recorded = json.loads(TRACES.read_text())
    tiles, reference = recorded['HGKD, tiles'], recorded['HGKD, masked_dense']
    for found, expected in zip(tiles, reference, strict=True):
        assert found == pytest.approx(expected, rel=1e-7)


if __name__ == '__main__':
    TRACES.write_text(json.dumps({name: trace(name) for name in RUNS}, indent=1) + '\n')
