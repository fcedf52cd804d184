"""The whole step's variants, small: what is called exact is exact, and every part runs."""

from pathlib import Path

import pytest
import torch
from helpers.teachers import ARCH

from hgkd_mm.benchmark import VARIANTS, build_models, load_images, step_parts, whole_step
from hgkd_mm.benchmark.networks import NETWORKS, build_mmpretrain_sparse, build_network
from hgkd_mm.sparse import CellMask, sparsify

CONFIGS = Path(__file__).parents[2] / 'configs/pretrain'


def test_the_first_two_variants_take_the_same_step(config: Path) -> None:
    models = build_models(VARIANTS[:2], config, 'cpu', 0.6, vit=ARCH)
    reference, exact = models.values()
    exact.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.double)
    for model in models.values():
        torch.manual_seed(0)  # the same mask
        whole_step(model.double(), images)()
    for (name, one), other in zip(reference.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize('variant', VARIANTS, ids=lambda v: v.name)
def test_every_part_of_every_variant_runs_and_learns(variant, config: Path) -> None:
    (model,) = build_models((variant,), config, 'cpu', 0.6, vit=ARCH).values()
    parts = step_parts(model, torch.randn(2, 3, 64, 64))
    reached = {'student': model.backbone, 'decoder': model.neck, 'loss': model.heads}
    assert set(parts) == {*reached, 'teacher'}
    for name, run in parts.items():
        run()
        if name in reached:
            grads = [p.grad for p in reached[name].parameters() if p.grad is not None]
            assert any(g.abs().sum() > 0 for g in grads), name


def test_images_are_read_through_the_configs_pipeline() -> None:
    load_images(CONFIGS / 'hgkd_r50_mae.py', 1)()


@pytest.mark.parametrize('name', ['resnet18', 'convnext_tiny'])
def test_mmpretrains_networks_have_our_parameters(name: str) -> None:
    ours, theirs = build_network(name), build_mmpretrain_sparse(name)
    sizes = [sum(p.numel() for p in n.parameters()) for n in (ours, theirs)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


def test_every_network_runs_on_tiles() -> None:
    mask = CellMask.random(batch=1, grid=(2, 2), mask_ratio=0.5)
    for name in NETWORKS:
        maps = build_network(name)(sparsify(torch.randn(1, 3, 64, 64), mask))
        assert len(maps) == 4, name
