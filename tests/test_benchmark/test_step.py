"""The whole step's variants, small: what is called exact is exact, and every part runs."""

from pathlib import Path

import pytest
import torch
from helpers.teachers import ARCH
from mmengine.config import Config

from hgkd_mm.benchmark import Settings
from hgkd_mm.benchmark.step import build_models, step_parts, whole_step

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / 'configs/pretrain'
SMALL = Settings(batch=2, size=64, rounds=1, warmup=1)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The flagship with a ResNet-18, a teacher of 24 channels and a queue of 8 entries."""
    whole = Config.fromfile(CONFIGS / 'hgkd_r50_mae.py')
    whole.model.backbone.update(depth=18, drop_path_rate=0.0)
    whole.model.teachers.mim.arch = ARCH
    whole.model.heads.sim.queue_size = 8
    path = tmp_path / 'small.py'
    whole.dump(path)
    return path


def test_the_first_two_variants_take_the_same_step(config: Path) -> None:
    models = build_models(('as today', 'tiles'), config, SMALL, vit=ARCH)
    reference, exact = models.values()
    exact.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.double)
    for model in models.values():
        torch.manual_seed(0)  # the same mask
        whole_step(model.double(), images)()
    for (name, one), other in zip(reference.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize('variant', ['as today', '  and both'])
def test_every_part_runs_and_learns(variant, config: Path) -> None:
    (model,) = build_models((variant,), config, SMALL, vit=ARCH).values()
    parts = step_parts(model, torch.randn(2, 3, 64, 64))
    reached = {'student': model.backbone, 'decoder': model.neck, 'loss': model.heads}
    assert set(parts) == {*reached, 'teacher'}
    for name, run in parts.items():
        run()
        if name in reached:
            grads = [p.grad for p in reached[name].parameters() if p.grad is not None]
            assert any(g.abs().sum() > 0 for g in grads), name
